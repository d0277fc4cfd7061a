-- Plan the next looks at open runs whose looks were due, as `workflow_set_runs` does.
--
-- {runs}, {steps}  the schema-qualified tables
-- %s               a JSON array with the id of each run and the time of its look, which must be the same still. A locked run is
--                  left alone: waiting for it could end in a deadlock
WITH due AS (
    SELECT run.id FROM {runs} AS run
    JOIN jsonb_to_recordset(%s::jsonb) AS wanted (id varchar, look_at timestamptz) ON run.id = wanted.id
    WHERE run.ended IS NULL AND run.look_at IS NOT DISTINCT FROM wanted.look_at
    ORDER BY run.id
    FOR UPDATE OF run SKIP LOCKED
)
UPDATE {runs} AS run SET
    look_at = least(
        CASE WHEN run.state IN ('pending', 'running') THEN run.deadline END,
        (
            SELECT min(step.wake_at) FROM {steps} AS step
            WHERE step.run = run.id AND step.index = -1 AND step.state = 'ready' AND step.wake_at > clock_timestamp()
        ),
        clock_timestamp() + make_interval(secs => least(900, greatest(60, extract(epoch FROM clock_timestamp() - (
            SELECT max(greatest(step.ready_at, step.ended)) FROM {steps} AS step
            WHERE step.run = run.id AND step.index = -1
        ))))::float8)
    )
FROM due
WHERE run.id = due.id

-- End steps that have run, or note an attempt that failed. This is the fence: a step that is not ready any more, or belongs to
-- another generation of its run, is left alone.
--
-- {steps}  the schema-qualified table
-- %s       a JSON array with an object for each step
--
-- Returns the steps that were changed. It also runs in the transaction of a task, so all names are qualified.
WITH wanted AS (
    SELECT * FROM pg_catalog.jsonb_to_recordset(%s::pg_catalog.jsonb) AS one (
        run pg_catalog.varchar, name pg_catalog.varchar, index pg_catalog.int4, generation pg_catalog.int4,
        state pg_catalog.varchar, output pg_catalog.jsonb, context pg_catalog.jsonb, attempts pg_catalog.int4,
        error pg_catalog.text, task_id pg_catalog.varchar, delay pg_catalog.float8, started pg_catalog.timestamptz,
        ended pg_catalog.timestamptz
    )
), locked AS (
    SELECT step.run, step.name, step.index FROM {steps} AS step JOIN wanted ON
        step.run OPERATOR(pg_catalog.=) wanted.run AND step.name OPERATOR(pg_catalog.=) wanted.name
        AND step.index OPERATOR(pg_catalog.=) wanted.index
    WHERE step.state OPERATOR(pg_catalog.=) 'ready' AND step.generation OPERATOR(pg_catalog.=) wanted.generation
    ORDER BY step.run, step.name, step.index
    FOR UPDATE OF step
)
UPDATE {steps} AS step SET
    state = wanted.state, output = wanted.output, context = wanted.context, attempts = wanted.attempts,
    error = wanted.error, task_id = coalesce(wanted.task_id, step.task_id), started = wanted.started,
    ended = wanted.ended,
    wake_at = pg_catalog.clock_timestamp()
        OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => wanted.delay)
FROM wanted, locked
WHERE step.run OPERATOR(pg_catalog.=) wanted.run AND step.name OPERATOR(pg_catalog.=) wanted.name
    AND step.index OPERATOR(pg_catalog.=) wanted.index
    AND locked.run OPERATOR(pg_catalog.=) wanted.run AND locked.name OPERATOR(pg_catalog.=) wanted.name
    AND locked.index OPERATOR(pg_catalog.=) wanted.index
    AND step.state OPERATOR(pg_catalog.=) 'ready' AND step.generation OPERATOR(pg_catalog.=) wanted.generation
RETURNING step.run, step.name, step.index

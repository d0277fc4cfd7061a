-- Change the states of runs, and when the scheduler looks at them next.
--
-- {runs}, {steps}  the schema-qualified tables
-- %s               a JSON array with an object for each run. `has_ended` says that the run has ended; then `look` are the
--                  seconds until it is deleted. `is_now` says that the next look is due at once, and `is_kept` that it stays
--                  as it is. Otherwise it is in a minute, and later if nothing has happened for longer, but at most in a
--                  quarter of an hour, and not after the deadline or the next start of a step that is tried again
UPDATE {runs} AS run SET
    state = wanted.state,
    error = wanted.error,
    started = coalesce(run.started, CASE WHEN wanted.state <> 'pending' THEN clock_timestamp() END),
    ended = CASE WHEN wanted.has_ended THEN coalesce(run.ended, clock_timestamp()) END,
    look_at = CASE
        WHEN wanted.has_ended THEN clock_timestamp() + make_interval(secs => wanted.look)
        WHEN wanted.is_now THEN clock_timestamp()
        WHEN wanted.is_kept THEN run.look_at
        ELSE least(
            CASE WHEN run.deadline > clock_timestamp() THEN run.deadline END,
            (
                SELECT min(step.wake_at) FROM {steps} AS step
                WHERE step.run = run.id AND step.index = -1 AND step.state = 'ready'
                    AND step.wake_at > clock_timestamp()
            ),
            clock_timestamp() + make_interval(secs => least(900, greatest(60, extract(epoch FROM clock_timestamp() - (
                SELECT max(greatest(step.ready_at, step.ended)) FROM {steps} AS step
                WHERE step.run = run.id AND step.index = -1
            ))))::float8)
        )
    END
FROM jsonb_to_recordset(%s::jsonb)
    AS wanted (id varchar, state varchar, error text, has_ended boolean, is_now boolean, is_kept boolean, look float8)
WHERE run.id = wanted.id

-- Change the states of runs, and when the scheduler looks at them next.
--
-- {runs}  the schema-qualified table
-- %s      a JSON array with an object for each run: `look` are the seconds until the next look, `is_kept` says that the look
--         stays as it is, and `has_ended` that the run ends now. Without `look`, nothing looks at it any more
UPDATE {runs} AS run SET
    state = wanted.state,
    error = wanted.error,
    started = coalesce(run.started, CASE WHEN wanted.state <> 'pending' THEN clock_timestamp() END),
    ended = CASE WHEN wanted.has_ended THEN coalesce(run.ended, clock_timestamp()) END,
    look_at = CASE WHEN wanted.is_kept THEN run.look_at ELSE clock_timestamp() + make_interval(secs => wanted.look) END
FROM jsonb_to_recordset(%s::jsonb)
    AS wanted (id varchar, state varchar, error text, has_ended boolean, is_kept boolean, look float8)
WHERE run.id = wanted.id

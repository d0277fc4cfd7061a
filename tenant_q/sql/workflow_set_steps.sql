-- Change the states of steps: each that still has the state in which it was read. Return those that are ready now.
--
-- {steps}  the schema-qualified table
-- %s       a JSON array with an object for each step
WITH wanted AS (
    SELECT * FROM jsonb_to_recordset(%s::jsonb)
        AS one (run varchar, name varchar, index integer, was varchar, state varchar, error text)
), locked AS (
    SELECT step.run, step.name, step.index FROM {steps} AS step
    JOIN wanted ON step.run = wanted.run AND step.name = wanted.name AND step.index = wanted.index
    WHERE step.state = wanted.was
    ORDER BY step.run, step.name, step.index
    FOR UPDATE OF step
), changed AS (
    UPDATE {steps} AS step SET
        state = wanted.state,
        error = wanted.error,
        ready_at = CASE wanted.state WHEN 'ready' THEN clock_timestamp() ELSE step.ready_at END,
        ended = CASE WHEN wanted.state IN ('succeeded', 'failed', 'skipped', 'cancelled') THEN clock_timestamp() END
    FROM wanted, locked
    WHERE step.run = wanted.run AND step.name = wanted.name AND step.index = wanted.index
        AND locked.run = wanted.run AND locked.name = wanted.name AND locked.index = wanted.index
        AND step.state = wanted.was
    RETURNING step.run, step.name, step.index, step.generation, step.attempts, step.state
)
SELECT run, name, index, generation, attempts, NULL::float8 FROM changed WHERE state = 'ready'

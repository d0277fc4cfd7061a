-- Start a run of a workflow: write its row and those of its steps, unless the workflow has a run with the same key.
--
-- {runs}, {steps}  the schema-qualified tables
-- %s               id, workflow, version, key, cluster, state, plan, input, configuration, the seconds to the deadline or null, the
--                  seconds to the first look, who starts it, and a JSON array with a name and a state for each step
--
-- Returns the moments, as seconds since the epoch, when the run was created, when it must end, and when the scheduler looks at it
-- first; no row if it was not written. It also runs in a transaction of the caller, so all names are qualified.
WITH run AS (
    INSERT INTO {runs} (
        id, workflow, version, key, cluster, state, plan, input, config, generation, created, started, deadline, look_at,
        error, by
    )
    SELECT id, workflow, version, key, cluster, state, plan, input, config, 1, now.at,
        CASE WHEN state OPERATOR(pg_catalog.<>) 'pending' THEN now.at END,
        now.at OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => timeout),
        now.at OPERATOR(pg_catalog.+) pg_catalog.make_interval(secs => LEAST(timeout, look)),
        '', by
    FROM (
        SELECT %s::pg_catalog.varchar, %s::pg_catalog.varchar, %s::pg_catalog.varchar, %s::pg_catalog.varchar,
            %s::pg_catalog.varchar, %s::pg_catalog.varchar, %s::pg_catalog.jsonb, %s::pg_catalog.jsonb,
            %s::pg_catalog.jsonb, %s::pg_catalog.float8, %s::pg_catalog.float8, %s::pg_catalog.varchar
    ) AS given (id, workflow, version, key, cluster, state, plan, input, config, timeout, look, by),
    (SELECT pg_catalog.clock_timestamp()) AS now (at)
    ON CONFLICT (workflow, key) DO NOTHING
    RETURNING id, created, deadline, look_at
), step AS (
    INSERT INTO {steps} (run, name, index, generation, state, attempts, error, ready_at)
    SELECT run.id, step.name, -1, 1, step.state, 0, '', CASE step.state WHEN 'ready' THEN run.created END
    FROM run, pg_catalog.jsonb_to_recordset(%s::pg_catalog.jsonb)
        AS step (name pg_catalog.varchar, state pg_catalog.varchar)
)
SELECT pg_catalog.date_part('epoch', run.created), pg_catalog.date_part('epoch', run.deadline),
    pg_catalog.date_part('epoch', run.look_at)
FROM run

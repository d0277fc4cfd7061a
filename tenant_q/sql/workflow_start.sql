-- Start a run of a workflow: write its row and those of its steps, unless the workflow has a run with the same key.
--
-- {runs}, {steps}  the schema-qualified tables
-- %s               the columns of the run, in the order below, and a JSON array with a name and a state for each step
--
-- Returns the id if the run was written. It also runs in a transaction of the caller, so all names are qualified.
WITH run AS (
    INSERT INTO {runs} (
        id, workflow, version, key, cluster, state, plan, input, config, generation, created, started, deadline, look_at,
        error, by
    )
    VALUES (
        %s, %s, %s, %s, %s, %s, %s::pg_catalog.jsonb, %s::pg_catalog.jsonb, %s::pg_catalog.jsonb, 1, %s, %s, %s, %s, '', %s
    )
    ON CONFLICT (workflow, key) DO NOTHING
    RETURNING id, created
), step AS (
    INSERT INTO {steps} (run, name, index, generation, state, attempts, error, ready_at)
    SELECT run.id, step.name, -1, 1, step.state, 0, '', CASE step.state WHEN 'ready' THEN run.created END
    FROM run, pg_catalog.jsonb_to_recordset(%s::pg_catalog.jsonb)
        AS step (name pg_catalog.varchar, state pg_catalog.varchar)
)
SELECT run.id FROM run

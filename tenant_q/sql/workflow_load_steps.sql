-- Read the steps that a worker is about to run, with what it needs of their runs.
--
-- {runs}, {steps}  the schema-qualified tables
-- %s               a JSON array with run, name and index of each step
SELECT step.run, step.name, step.index, step.state, step.generation, step.item, step.attempts,
    pg_catalog.date_part('epoch', step.wake_at OPERATOR(pg_catalog.-) pg_catalog.clock_timestamp()),
    run.workflow, run.state, run.input, run.config, run.error
FROM pg_catalog.jsonb_to_recordset(%s::pg_catalog.jsonb)
    AS asked (run pg_catalog.varchar, name pg_catalog.varchar, index pg_catalog.int4)
JOIN {steps} AS step ON step.run OPERATOR(pg_catalog.=) asked.run AND step.name OPERATOR(pg_catalog.=) asked.name
    AND step.index OPERATOR(pg_catalog.=) asked.index
JOIN {runs} AS run ON run.id OPERATOR(pg_catalog.=) step.run

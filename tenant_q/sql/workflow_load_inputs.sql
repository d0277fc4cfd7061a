-- Read the small outputs of the steps on which some steps depend. Larger ones, and those of steps with items, are read when they
-- are used.
--
-- {steps}  the schema-qualified table
-- %s       a JSON array with run and name of each step, and the largest output in bytes
SELECT step.run, step.name, step.output
FROM pg_catalog.jsonb_to_recordset(%s::pg_catalog.jsonb) AS asked (run pg_catalog.varchar, name pg_catalog.varchar)
JOIN {steps} AS step ON step.run OPERATOR(pg_catalog.=) asked.run AND step.name OPERATOR(pg_catalog.=) asked.name
    AND step.index OPERATOR(pg_catalog.=) -1
WHERE step.state OPERATOR(pg_catalog.=) 'succeeded' AND step.at_once IS NULL
    AND coalesce(pg_catalog.octet_length(step.output::pg_catalog.text), 0) OPERATOR(pg_catalog.<=) %s

-- Count the workflow runs of one schema that have not ended, by what decides whether something drives them.
--
-- {schema}  the name of the schema
-- {runs}    its table of runs
-- {due}     the index of runs, in the public schema
-- Returns   the schema, the workflow, the cluster, whether the index has no entry, whether no look is planned, the
--           number of runs, and the id of one of them
SELECT {schema}::pg_catalog.text, run.workflow, run.cluster, due.run IS NULL,
    run.look_at IS NULL OR (due.run IS NOT NULL AND due.due IS NULL), pg_catalog.count(*), pg_catalog.min(run.id)
FROM {runs} AS run LEFT JOIN {due} AS due
    ON due.schema_name OPERATOR(pg_catalog.=) {schema} AND due.run OPERATOR(pg_catalog.=) run.id
WHERE run.ended IS NULL
GROUP BY 2, 3, 4, 5

-- Find the schemas that have a table of workflow runs, and whether the index of runs lacks it.
--
-- {schemas}  the names of the schemas
-- {indexed}  the table of the schemas that are in the index, in the public schema
-- Returns    the name of the schema, and whether the index does not have the table that is there now
SELECT asked.name, NOT coalesce(indexed.table_oid OPERATOR(pg_catalog.=) asked.oid, false)
FROM (
    SELECT name, pg_catalog.to_regclass(
        pg_catalog.quote_ident(name) OPERATOR(pg_catalog.||) '.tenant_q_workflows_run'
    )::pg_catalog.oid::pg_catalog.int8
    FROM pg_catalog.unnest({schemas}::pg_catalog.text[]) AS given (name)
) AS asked (name, oid)
LEFT JOIN {indexed} AS indexed ON indexed.schema_name OPERATOR(pg_catalog.=) asked.name
WHERE asked.oid IS NOT NULL
ORDER BY asked.name

-- Find the schemas that have a table of workflow runs.
--
-- {schemas}  the names of the schemas
-- Returns    the names of those that have one
SELECT given.name FROM pg_catalog.unnest({schemas}::pg_catalog.text[]) AS given (name)
WHERE pg_catalog.to_regclass(
    pg_catalog.quote_ident(given.name) OPERATOR(pg_catalog.||) '.tenant_q_workflows_run'
) IS NOT NULL
ORDER BY given.name

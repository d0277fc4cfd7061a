-- Find the cancelled tasks among given ones of one tenant.
--
-- {table}     the schema-qualified table
-- {cancelled} the mark of a cancelled task's result
-- %s          the ids of the tasks
SELECT id FROM {table}
WHERE id OPERATOR(pg_catalog.=) ANY (%s)
    AND NOT success
    AND pg_catalog.strpos(pg_catalog.substr(result, 1, 40), {cancelled}) OPERATOR(pg_catalog.>) 0

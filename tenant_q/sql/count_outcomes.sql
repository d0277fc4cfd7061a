-- Count the successes and failures of one tenant, and find when the oldest of those that may be deleted ended.
--
-- {table}   the schema-qualified table
-- {may_go}  the condition on which a row may be deleted
SELECT success, pg_catalog.count(*), pg_catalog.min(stopped) FILTER (WHERE {may_go})
FROM ONLY {table} AS task
GROUP BY success

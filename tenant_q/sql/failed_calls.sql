-- Read failed tasks of one tenant, to run them again.
--
-- {table}  the schema-qualified table
-- %s       the ids of the tasks
SELECT id, name, func, hook, "group", cluster, args, kwargs, result
FROM {table}
WHERE id OPERATOR(pg_catalog.=) ANY (%s) AND NOT success

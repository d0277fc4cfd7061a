-- Delete failed tasks of one tenant.
--
-- {table}  the schema-qualified table
-- %s       the ids of the tasks
DELETE FROM ONLY {table} WHERE id OPERATOR(pg_catalog.=) ANY (%s) AND NOT success RETURNING id

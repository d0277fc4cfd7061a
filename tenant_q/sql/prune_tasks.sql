-- Delete outcomes of one tenant.
--
-- {table}  the schema-qualified table
-- ids      the ids of the tasks
-- spared   rows saved after this moment stay: a failed task may have been run again meanwhile, with the same id
DELETE FROM ONLY {table}
WHERE id OPERATOR(pg_catalog.=) ANY (%(ids)s) AND stopped OPERATOR(pg_catalog.<) %(spared)s

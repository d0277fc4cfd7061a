-- Find the tables of the indexes in the public schema that the current role may not read and write.
--
-- {paths}  the tables that a cluster uses, qualified and quoted
SELECT tab.path, current_user::pg_catalog.text
FROM pg_catalog.unnest({paths}::pg_catalog.text[]) AS tab (path)
WHERE NOT (
    pg_catalog.has_table_privilege(tab.path, 'SELECT') AND pg_catalog.has_table_privilege(tab.path, 'INSERT')
    AND pg_catalog.has_table_privilege(tab.path, 'UPDATE') AND pg_catalog.has_table_privilege(tab.path, 'DELETE')
)
ORDER BY tab.path

-- Find the shared tables to which tables of tenants refer and which their roles may not read: schema, name, and a list of the roles.
--
-- {roles}   the OIDs of the roles
-- {spaces}  the OIDs of their schemas, in the same order; 0 for a role without one
-- {shared}  the OIDs of the schemas that all tenants' search paths contain
SELECT space.nspname::text, tab.relname::text, array_agg(DISTINCT subject.role::int8)
FROM unnest({roles}::oid[], {spaces}::oid[]) AS subject (role, space)
JOIN pg_class AS referring ON referring.relnamespace = subject.space
JOIN pg_constraint AS con ON con.conrelid = referring.oid AND con.contype = 'f'
JOIN pg_class AS tab ON tab.oid = con.confrelid
JOIN pg_namespace AS space ON space.oid = tab.relnamespace
WHERE tab.relnamespace = ANY ({shared}::oid[]) AND NOT has_table_privilege(subject.role, tab.oid, 'SELECT')
GROUP BY space.nspname, tab.relname
ORDER BY 1, 2

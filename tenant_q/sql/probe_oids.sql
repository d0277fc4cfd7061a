-- Return the OIDs of roles and schemas: their kind, name and OID. Missing ones have no row.
--
-- {roles}   the names of the roles
-- {spaces}  the names of the schemas
SELECT 'role', rolname::text, oid::int8 FROM pg_catalog.pg_roles WHERE rolname = ANY ({roles}::text[])
UNION ALL
SELECT 'schema', nspname::text, oid::int8 FROM pg_catalog.pg_namespace WHERE nspname = ANY ({spaces}::text[])

-- Find the attributes of tenants' roles that open more than grants can close, and of their group the right to log in.
--
-- {roles}  the OIDs of the roles
-- {group}  the name of the group
--
-- Rows: as the grants of probe_rights.sql.
SELECT 'attribute' AS kind, attribute.name AS "right", format('ROLE %I', one.rolname) AS object, quote_ident(one.rolname) AS holder,
    false AS is_warning, ARRAY[one.oid] AS roles, format('ALTER ROLE %I %s', one.rolname, attribute.name) AS opens,
    format('ALTER ROLE %I NO%s', one.rolname, attribute.name) AS closes
FROM pg_roles AS one CROSS JOIN LATERAL (
    VALUES ('SUPERUSER', one.rolsuper), ('CREATEROLE', one.rolcreaterole), ('CREATEDB', one.rolcreatedb),
        ('REPLICATION', one.rolreplication), ('BYPASSRLS', one.rolbypassrls),
        -- It is the default of each later membership.
        ('INHERIT', one.rolinherit AND one.rolname <> {group}),
        ('LOGIN', one.rolcanlogin AND one.rolname = {group})
) AS attribute (name, is_set)
WHERE one.oid = ANY ({roles}::oid[]) AND attribute.is_set
ORDER BY one.rolname, attribute.name

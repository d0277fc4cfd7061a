-- Find the default privileges that would open objects of the future to tenants' roles.
--
-- {roles}   the OIDs of the roles
-- {spaces}  the OIDs of their schemas, in the same order; 0 for a role without one
--
-- Rows: as the grants of probe_rights.sql.
SELECT 'default privilege' AS kind, entry.privilege_type AS "right", concat('FUTURE ', what.name, ' IN SCHEMA ' || space.name) AS object,
    holder.name AS holder, false AS is_warning,
    CASE entry.grantee WHEN 0 THEN {roles}::oid[] ELSE ARRAY[entry.grantee] END AS roles,
    format('%s GRANT %s ON %s TO %s%s', clause.text, entry.privilege_type, what.name, holder.name,
        CASE WHEN entry.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END) AS opens,
    format('%s REVOKE %s ON %s FROM %s', clause.text, entry.privilege_type, what.name, holder.name) AS closes
FROM pg_default_acl AS made
CROSS JOIN aclexplode(made.defaclacl) AS entry
LEFT JOIN unnest({roles}::oid[], {spaces}::oid[]) AS subject (role, space) ON subject.role = entry.grantee
CROSS JOIN LATERAL (
    SELECT CASE made.defaclobjtype
        WHEN 'r' THEN 'TABLES' WHEN 'S' THEN 'SEQUENCES' WHEN 'f' THEN 'FUNCTIONS' WHEN 'T' THEN 'TYPES'
        WHEN 'n' THEN 'SCHEMAS' ELSE 'LARGE OBJECTS'
    END
) AS what (name)
CROSS JOIN LATERAL (
    SELECT (SELECT quote_ident(nspname) FROM pg_namespace WHERE oid = made.defaclnamespace)
) AS space (name)
CROSS JOIN LATERAL (
    SELECT CASE entry.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(entry.grantee)) END
) AS holder (name)
CROSS JOIN LATERAL (
    SELECT concat('ALTER DEFAULT PRIVILEGES FOR ROLE ', quote_ident(pg_get_userbyid(made.defaclrole)), ' IN SCHEMA ' || space.name)
) AS clause (text)
WHERE entry.grantee <> made.defaclrole AND CASE
    -- PUBLIC has these without default privileges.
    WHEN entry.grantee = 0 THEN made.defaclobjtype NOT IN ('f', 'T')
    WHEN subject.role IS NULL THEN false
    WHEN entry.is_grantable OR subject.space <> made.defaclnamespace OR subject.space = 0 THEN true
    WHEN made.defaclobjtype = 'r' THEN entry.privilege_type NOT IN ('SELECT', 'INSERT', 'UPDATE', 'DELETE')
    WHEN made.defaclobjtype = 'S' THEN entry.privilege_type NOT IN ('USAGE', 'SELECT')
    ELSE made.defaclobjtype NOT IN ('f', 'T')
END
ORDER BY clause.text, what.name, entry.privilege_type

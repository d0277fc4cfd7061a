-- Return the roles that can connect to the database only because everybody can, with the number of their sessions in it. Superusers,
-- the database's owner and roles to which CONNECT was granted are not among them.
--
-- {kept}  the names of roles that will get CONNECT, a literal
SELECT role.rolname::pg_catalog.text, (
    SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity AS session
    WHERE session.usesysid OPERATOR(pg_catalog.=) role.oid AND session.datid OPERATOR(pg_catalog.=) base.oid
)
FROM pg_catalog.pg_roles AS role, pg_catalog.pg_database AS base
WHERE base.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() AND role.rolcanlogin AND NOT role.rolsuper
    AND role.rolname OPERATOR(pg_catalog.<>) ALL ({kept}::pg_catalog.text[])
    AND pg_catalog.has_database_privilege(role.oid, base.oid, 'CONNECT') AND NOT pg_catalog.pg_has_role(role.oid, base.datdba, 'USAGE')
    AND NOT EXISTS (
        SELECT FROM pg_catalog.aclexplode(base.datacl) AS acl
        WHERE acl.privilege_type OPERATOR(pg_catalog.=) 'CONNECT' AND acl.grantee OPERATOR(pg_catalog.<>) 0
            AND pg_catalog.pg_has_role(role.oid, acl.grantee, 'USAGE')
    )
ORDER BY 1

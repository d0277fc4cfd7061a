-- Return whether the current role has the rights of the database's owner, and whether everybody can connect to the database.
SELECT pg_catalog.pg_has_role(base.datdba, 'USAGE'), EXISTS (
    SELECT FROM pg_catalog.aclexplode(COALESCE(base.datacl, pg_catalog.acldefault('d', base.datdba))) AS acl
    WHERE acl.privilege_type OPERATOR(pg_catalog.=) 'CONNECT' AND acl.grantee OPERATOR(pg_catalog.=) 0
)
FROM pg_catalog.pg_database AS base WHERE base.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()

-- Return what is there of a tenant's role, for the session of TENANT_Q["admin_database"]. Each column is null if the role or the group
-- is not there.
--
-- {role}   the name of the role, a literal
-- {group}  the name of the group of all tenants' roles of the database, a literal
--
-- Columns: whether the admin role may grant the group; whether it may change the role; whether the role is in the group; the names of
-- attributes that only a superuser may take from the role; whether the role has an end, and not that of
-- tenant_role_unexpire.sql
SELECT
    (
        SELECT admin.rolsuper OR pg_catalog.pg_has_role(groups.oid, 'MEMBER WITH ADMIN OPTION')
        FROM pg_catalog.pg_roles AS groups WHERE groups.rolname OPERATOR(pg_catalog.=) {group}
    ),
    admin.rolsuper OR pg_catalog.pg_has_role(own.oid, 'MEMBER WITH ADMIN OPTION'),
    EXISTS (
        SELECT FROM pg_catalog.pg_auth_members AS member
        JOIN pg_catalog.pg_roles AS groups ON groups.oid OPERATOR(pg_catalog.=) member.roleid
        WHERE member.member OPERATOR(pg_catalog.=) own.oid AND groups.rolname OPERATOR(pg_catalog.=) {group}
    ),
    pg_catalog.concat_ws(
        ' ', CASE WHEN own.rolsuper THEN 'NOSUPERUSER' END, CASE WHEN own.rolcreatedb THEN 'NOCREATEDB' END,
        CASE WHEN own.rolreplication THEN 'NOREPLICATION' END, CASE WHEN own.rolbypassrls THEN 'NOBYPASSRLS' END
    ),
    own.rolvaliduntil OPERATOR(pg_catalog.<>) '9999-01-01 00:00:00+00'::pg_catalog.timestamptz
FROM pg_catalog.pg_roles AS admin
LEFT JOIN pg_catalog.pg_roles AS own ON own.rolname OPERATOR(pg_catalog.=) {role}
WHERE admin.rolname OPERATOR(pg_catalog.=) current_user

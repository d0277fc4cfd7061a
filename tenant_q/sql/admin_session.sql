-- Limit the waits of the session of TENANT_Q["admin_database"], and return where it leads: the version of the server, the database's name
-- and OID, when the server was started, the role, and whether it may create roles.
SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4, pg_catalog.current_database()::pg_catalog.text,
    base.oid::pg_catalog.int8, pg_catalog.pg_postmaster_start_time(), current_user::pg_catalog.text, role.rolcreaterole OR role.rolsuper,
    pg_catalog.set_config('statement_timeout', '60s', false), pg_catalog.set_config('lock_timeout', '5s', false),
    pg_catalog.set_config('search_path', '', false)
FROM pg_catalog.pg_database AS base, pg_catalog.pg_roles AS role
WHERE base.datname OPERATOR(pg_catalog.=) pg_catalog.current_database() AND role.rolname OPERATOR(pg_catalog.=) current_user

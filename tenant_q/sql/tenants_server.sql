-- Return what the tenants' connection leads to: the version of the server, the database's name and OID, when the server was started, and
-- the role that owns the tenants' objects (the current one) and the role that logged in.
SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4, pg_catalog.current_database()::pg_catalog.text,
    base.oid::pg_catalog.int8, pg_catalog.pg_postmaster_start_time(), current_user::pg_catalog.text, session_user::pg_catalog.text
FROM pg_catalog.pg_database AS base
WHERE base.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()

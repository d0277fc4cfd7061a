-- Return of the server what the attempts of a probe are made on: the owner's role, its backend, the superuser that the server was
-- created with, the database, and a large object that belongs to none of the tenants' roles, or null.
--
-- {roles}  the OIDs of the roles
SELECT current_user::text, pg_catalog.pg_backend_pid(), pg_catalog.pg_get_userbyid(10)::text, pg_catalog.current_database()::text, (
    SELECT large.oid::int8 FROM pg_catalog.pg_largeobject_metadata AS large
    WHERE large.lomowner <> ALL ({roles}::oid[]) AND large.lomacl IS NULL ORDER BY large.oid LIMIT 1
)

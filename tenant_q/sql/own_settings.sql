-- The settings that a role has given itself, or was given, for its sessions, as one text; null if there are none. This is an expression
-- for other statements.
--
-- {role}  the name of the role
(
    SELECT pg_catalog.string_agg(pg_catalog.array_to_string(setting.setconfig, ', '), ', ')
    FROM pg_catalog.pg_db_role_setting AS setting
    WHERE setting.setrole OPERATOR(pg_catalog.=) (
        SELECT oid FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) {role}
    )
)

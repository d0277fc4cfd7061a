-- Return what is needed to find out why a tenant's role could not log in. It waits for a rotation of the password to end.
--
-- {roles}   the table of tenants' roles
-- {schema}  the tenant's schema name
-- Returns   the version and state of the role; whether it has as many sessions as it may; and whether the server has
SELECT known.version, known.state,
    login.rolconnlimit OPERATOR(pg_catalog.>=) 0 AND login.rolconnlimit OPERATOR(pg_catalog.<=) (
        SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity
        WHERE usename OPERATOR(pg_catalog.=) known.role::pg_catalog.name
    ),
    (
        SELECT pg_catalog.sum(numbackends) FROM pg_catalog.pg_stat_database
    ) OPERATOR(pg_catalog.>=) (
        SELECT pg_catalog.sum(CASE name WHEN 'max_connections' THEN setting::pg_catalog.int4 ELSE - setting::pg_catalog.int4 END)
        FROM pg_catalog.pg_settings
        WHERE name OPERATOR(pg_catalog.=) ANY (
            '{{max_connections,superuser_reserved_connections,reserved_connections}}'::pg_catalog.text[]
        )
    )
FROM {roles} AS known
LEFT JOIN pg_catalog.pg_roles AS login ON login.rolname OPERATOR(pg_catalog.=) known.role::pg_catalog.name
WHERE known.schema_name OPERATOR(pg_catalog.=) {schema}
FOR SHARE OF known

-- Return the settings that ALTER ROLE and ALTER DATABASE have made for sessions of this role and database.
SELECT setting.setrole OPERATOR(pg_catalog.<>) 0, setting.setdatabase OPERATOR(pg_catalog.<>) 0, entry.text,
    session_user::pg_catalog.text, pg_catalog.current_database()::pg_catalog.text
FROM pg_catalog.pg_db_role_setting AS setting, pg_catalog.unnest(setting.setconfig) AS entry (text)
WHERE setting.setrole OPERATOR(pg_catalog.=) ANY (ARRAY[
        0::pg_catalog.oid, (SELECT oid FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) session_user)
    ])
    AND setting.setdatabase OPERATOR(pg_catalog.=) ANY (ARRAY[
        0::pg_catalog.oid,
        (SELECT oid FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
    ])
ORDER BY 1, 2, 3

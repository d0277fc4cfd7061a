-- Find the settings that ALTER ROLE has made for the sessions of tenants' roles, such as a search path, and the parameter of the
-- server that opens all large objects.
--
-- {roles}  the OIDs of the roles
--
-- Rows: as the grants of probe_rights.sql.
SELECT 'setting' AS kind, entry.name AS "right",
    format('ROLE %I%s', one.rolname, place.text) AS object,
    quote_ident(one.rolname) AS holder, false AS is_warning, ARRAY[one.oid] AS roles,
    format('ALTER ROLE %I%s SET %s = %L', one.rolname, place.text, entry.name, entry.value) AS opens,
    format('ALTER ROLE %I%s RESET %s', one.rolname, place.text, entry.name) AS closes
FROM pg_db_role_setting AS setting
JOIN pg_roles AS one ON one.oid = setting.setrole
LEFT JOIN pg_database AS base ON base.oid = setting.setdatabase
CROSS JOIN unnest(setting.setconfig) AS listed (text)
CROSS JOIN LATERAL (SELECT split_part(listed.text, '=', 1), substr(listed.text, strpos(listed.text, '=') + 1)) AS entry (name, value)
CROSS JOIN LATERAL (SELECT COALESCE(' IN DATABASE ' || quote_ident(base.datname), '')) AS place (text)
WHERE setting.setrole = ANY ({roles}::oid[])
UNION ALL
SELECT 'setting', 'lo_compat_privileges', 'LARGE OBJECTS', 'PUBLIC', false, {roles}::oid[],
    'ALTER SYSTEM SET lo_compat_privileges = on', 'ALTER SYSTEM RESET lo_compat_privileges; SELECT pg_reload_conf()'
WHERE current_setting('lo_compat_privileges') = 'on'

-- Set the search path to a schema. Return the schema that is current then, the OID of its task table or null, and the key of
-- the tenant that has the schema now.
--
-- {path}   the search path, its names quoted
-- {table}  the task table, qualified and quoted
-- {key}    the column with the tenants' keys
-- {tenants}, {name}  the table of tenants, and the schema's name in it
-- {reset}  switches back to the owner's role, or null
-- {role}   switches to the tenant's role after that, or null; the rights to the tables are checked before
SELECT {reset}, pg_catalog.set_config('search_path', {path}, false);
SELECT pg_catalog.current_schema(), pg_catalog.to_regclass({table})::pg_catalog.oid::pg_catalog.int8,
    (SELECT {key}::pg_catalog.text FROM {tenants} WHERE schema_name OPERATOR(pg_catalog.=) {name}),
    {role}

-- Set the session to a schema, and say where it really is then, and which table is the schema's task table, if any.
--
-- {path}   the search path, its names quoted
-- {table}  the task table, qualified and quoted
SELECT pg_catalog.set_config('search_path', {path}, false);
SELECT pg_catalog.current_schema(), pg_catalog.to_regclass({table})::pg_catalog.oid::pg_catalog.int8

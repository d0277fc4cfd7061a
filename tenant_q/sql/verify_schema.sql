-- Set the session to a schema, and say where it really is then, and which table is the schema's task table, if any.
--
-- {path}   the search path, its names quoted
-- {table}  the task table, qualified and quoted
SELECT set_config('search_path', {path}, false);
SELECT current_schema(), to_regclass({table})::oid::bigint

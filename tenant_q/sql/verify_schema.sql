-- Set the session to a schema, and say where it really is then, and whether the schema has Django-Q2's task table.
--
-- {path}    the search path, its names quoted
-- {schema}  the schema's name
-- {table}   the table's name
SELECT set_config('search_path', {path}, false);
SELECT current_schema(), to_regclass(quote_ident({schema}) || '.' || {table}) IS NOT NULL

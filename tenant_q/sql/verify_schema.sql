-- Set the session to a schema, and say where it really is then, and whether the schema has Django-Q2's task table.
--
-- parameters: the search path, quoted; the schema's name, the table's name
SELECT set_config('search_path', %s, false);
SELECT current_schema(), to_regclass(quote_ident(%s) || '.' || %s) IS NOT NULL

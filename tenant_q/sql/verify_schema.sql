-- Where the session really is, and whether a schema has Django-Q2's task table.
--
-- parameters: the schema's name, the table's name
SELECT current_schema(), to_regclass(quote_ident(%s) || '.' || %s) IS NOT NULL

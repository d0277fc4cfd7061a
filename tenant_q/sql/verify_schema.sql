-- Set the session to a schema, and say where it really is then, and whether the schema has Django-Q2's task table with
-- all its columns.
--
-- {path}     the search path, its names quoted
-- {schema}   the schema's name
-- {table}    the table's name
-- {columns}  the names of its columns
SELECT set_config('search_path', {path}, false);
SELECT current_schema(), (
    SELECT count(*) = cardinality({columns}::text[])
    FROM pg_catalog.pg_attribute
    WHERE attrelid = to_regclass(quote_ident({schema}) || '.' || {table}) AND attname = ANY ({columns}::text[])
        AND NOT attisdropped
)

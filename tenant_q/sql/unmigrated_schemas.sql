-- Those of some schemas that do not have Django-Q2's task table with all its columns.
--
-- {schemas}  their names
-- {table}    the table's name
-- {columns}  the names of its columns
SELECT name FROM unnest({schemas}::text[]) AS name
WHERE cardinality({columns}::text[]) <> (
    SELECT count(*) FROM pg_catalog.pg_attribute
    WHERE attrelid = to_regclass(quote_ident(name) || '.' || {table}) AND attname = ANY ({columns}::text[])
        AND NOT attisdropped
)

-- Say whether a table has all of these columns.
--
-- {table}    its OID
-- {columns}  the names of its columns
SELECT count(*) = cardinality({columns}::text[])
FROM pg_catalog.pg_attribute
WHERE attrelid = {table} AND attname = ANY ({columns}::text[]) AND NOT attisdropped

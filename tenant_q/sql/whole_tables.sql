-- Those of some schemas that have Django-Q2's task table with all its columns, and the table's OID.
--
-- {schemas}  their names
-- {table}    the table's name
-- {columns}  the names of its columns
SELECT name, found.id::bigint
FROM unnest({schemas}::text[]) AS name,
    LATERAL (SELECT to_regclass(quote_ident(name) || '.' || {table})::oid AS id) AS found
WHERE cardinality({columns}::text[]) = (
    SELECT count(*) FROM pg_catalog.pg_attribute
    WHERE attrelid = found.id AND attname = ANY ({columns}::text[]) AND NOT attisdropped
)

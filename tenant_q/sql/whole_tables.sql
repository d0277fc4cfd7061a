-- Those of some schemas that have Django-Q2's task table with all its columns, the table's OID, and whether the schema is
-- foreign.
--
-- {schemas}  their names
-- {table}    the table's name
-- {columns}  the names of its columns
-- {foreign}  the expression of is_foreign.sql, over `asked.name`
SELECT asked.name, found.id::pg_catalog.int8, COALESCE({foreign}, false)
FROM pg_catalog.unnest({schemas}::pg_catalog.text[]) AS asked (name), LATERAL (
    SELECT pg_catalog.to_regclass(
        pg_catalog.quote_ident(asked.name) OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) {table}
    )::pg_catalog.oid AS id
) AS found
WHERE pg_catalog.cardinality({columns}::pg_catalog.text[]) OPERATOR(pg_catalog.=) (
    SELECT pg_catalog.count(*) FROM pg_catalog.pg_attribute
    WHERE attrelid OPERATOR(pg_catalog.=) found.id
        AND attname OPERATOR(pg_catalog.=) ANY ({columns}::pg_catalog.text[]) AND NOT attisdropped
)

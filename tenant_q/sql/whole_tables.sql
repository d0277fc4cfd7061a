-- Find the schemas that have Django-Q2's task table with all its columns. Return for each schema the table's OID, the rights,
-- and whether the schema is foreign.
--
-- {schemas}  the names of the schemas
-- {table}    the table's name
-- {columns}  the names of its columns
-- {rights}   the expression of rights.sql, over `asked.name`
-- {foreign}  the expression of is_foreign.sql, over `asked.name`
SELECT asked.name, found.id::pg_catalog.int8, {rights}, COALESCE({foreign}, false)
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

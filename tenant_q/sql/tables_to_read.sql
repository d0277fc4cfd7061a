-- Find the schemas that have a table and whose tables run no code of another role when they are read.
--
-- {schemas}  the names of the schemas
-- {table}    the table's name
-- {foreign}  the expression of is_foreign.sql, over `asked.name`
-- {code}     the function tenant_q_foreign_code()
SELECT asked.name FROM pg_catalog.unnest({schemas}::pg_catalog.text[]) AS asked (name)
WHERE pg_catalog.to_regclass(
    pg_catalog.quote_ident(asked.name) OPERATOR(pg_catalog.||) '.' OPERATOR(pg_catalog.||) {table}
) IS NOT NULL
    AND CASE WHEN {foreign} THEN {code}(asked.name) IS NULL ELSE true END

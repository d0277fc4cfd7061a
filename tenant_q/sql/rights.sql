-- Who owns a schema and Django-Q2's tables in it, and what is granted on them, as a text: an expression, part of other
-- statements. Where two schemas have the same, either both are foreign or none is (see is_foreign.sql, which costs more).
--
-- {name}  an expression of type text: the schema
(
    SELECT pg_catalog.concat(space.nspowner, space.nspacl, (
        SELECT pg_catalog.string_agg(pg_catalog.concat(tab.relowner, tab.relacl), ';' ORDER BY tab.oid)
        FROM pg_catalog.pg_class AS tab
        WHERE tab.relnamespace OPERATOR(pg_catalog.=) space.oid
            AND tab.relname OPERATOR(pg_catalog.=) ANY ('{{django_q_task,django_q_schedule}}'::pg_catalog.text[])
    ))
    FROM pg_catalog.pg_namespace AS space WHERE space.nspname OPERATOR(pg_catalog.=) {name}
)

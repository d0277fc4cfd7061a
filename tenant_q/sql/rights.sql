-- The owners of a schema and of the tables of Django-Q2 and of workflows in it, and the grants on them, as one text. This is an
-- expression for other statements. Of two schemas with the same text, both are foreign or neither is (see is_foreign.sql, which costs more).
--
-- {name}  the schema, an expression of type text
(
    SELECT pg_catalog.concat(space.nspowner, space.nspacl, (
        SELECT pg_catalog.string_agg(pg_catalog.concat(tab.relowner, tab.relacl), ';' ORDER BY tab.oid)
        FROM pg_catalog.pg_class AS tab
        WHERE tab.relnamespace OPERATOR(pg_catalog.=) space.oid
            AND tab.relname OPERATOR(pg_catalog.=) ANY (
                '{{django_q_task,django_q_schedule,tenant_q_workflows_run,tenant_q_workflows_step,tenant_q_workflows_signal}}'::pg_catalog.text[]
            )
    ))
    FROM pg_catalog.pg_namespace AS space WHERE space.nspname OPERATOR(pg_catalog.=) {name}
)

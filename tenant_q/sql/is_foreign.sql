-- Whether an untrusted role could put its code into the tables of a schema. This is an expression for other statements.
-- Trusted roles are the current role, the owner of the due index, the owner of the database, and superusers. Any other role
-- makes the schema foreign if it owns the schema or a table of Django-Q2 or of workflows, may create objects in the schema, or
-- may put triggers or foreign keys on the tables.
--
-- {name}    the schema, an expression of type text
-- {public}  the public schema, a literal; it belongs to the project
-- Value     true or false; null for the public schema and if there is no such schema
(
    SELECT (space.nspowner OPERATOR(pg_catalog.<>) ALL (trusted.roles))
        OR EXISTS (
            SELECT FROM pg_catalog.aclexplode(space.nspacl) AS acl
            WHERE acl.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
                AND acl.grantee OPERATOR(pg_catalog.<>) ALL (trusted.roles)
        )
        OR EXISTS (
            SELECT FROM pg_catalog.pg_class AS tab
            WHERE tab.relnamespace OPERATOR(pg_catalog.=) space.oid
                AND tab.relname OPERATOR(pg_catalog.=) ANY (
                    '{{django_q_task,django_q_schedule,tenant_q_workflows_run,tenant_q_workflows_step,tenant_q_workflows_signal}}'::pg_catalog.text[]
                )
                AND (
                    tab.relowner OPERATOR(pg_catalog.<>) ALL (trusted.roles)
                    OR EXISTS (
                        SELECT FROM pg_catalog.aclexplode(tab.relacl) AS acl
                        WHERE acl.privilege_type OPERATOR(pg_catalog.=) ANY ('{{TRIGGER,REFERENCES}}'::pg_catalog.text[])
                            AND acl.grantee OPERATOR(pg_catalog.<>) ALL (trusted.roles)
                    )
                )
        )
    FROM pg_catalog.pg_namespace AS space, (
        SELECT ARRAY(
            SELECT oid FROM pg_catalog.pg_roles
            WHERE rolsuper OR rolname OPERATOR(pg_catalog.=) current_user
                OR rolname OPERATOR(pg_catalog.=) 'pg_database_owner'
            UNION ALL
            SELECT datdba FROM pg_catalog.pg_database
            WHERE datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
            UNION ALL
            SELECT relowner FROM pg_catalog.pg_class
            WHERE relname OPERATOR(pg_catalog.=) 'tenant_q_dueschedule' AND relnamespace OPERATOR(pg_catalog.=) (
                SELECT oid FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) {public}
            )
        ) AS roles
    ) AS trusted
    WHERE space.nspname OPERATOR(pg_catalog.=) {name} AND space.nspname OPERATOR(pg_catalog.<>) {public}
)

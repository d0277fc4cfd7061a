-- Whether a role that is not trusted could put code of its own into the tables of a schema: an expression, part of other
-- statements. Trusted are the current role, the owner of the due index, the owner of the database, and superusers. Another
-- role that owns the schema or one of Django-Q2's tables, may create objects in the schema, or may put triggers or foreign
-- keys on the tables, makes the schema foreign.
--
-- {name}    an expression of type text: the schema
-- {public}  a literal: the public schema, which is the project's own
-- Value     true, false, or null where there is no such schema, and for the public one
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
                AND tab.relname OPERATOR(pg_catalog.=) ANY ('{{django_q_task,django_q_schedule}}'::pg_catalog.text[])
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
            SELECT oid FROM pg_catalog.pg_roles WHERE rolsuper OR rolname OPERATOR(pg_catalog.=) current_user
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

-- Return the rights that a tenant's role still lacks after its grants, each with the name of the object. A GRANT of a role that may not
-- grant is only a warning in PostgreSQL.
--
-- {role}      the tenant's role, a literal
-- {schema}    the tenant's schema, a literal
-- {spaces}    the tenant's schema and those that all tenants share
-- {readable}  the shared tables that it may read, qualified and quoted
-- {writable}  the shared tables that it may also write
WITH own AS MATERIALIZED (
    -- By what depends on the schema, for which there is an index; pg_class has none by schema, and grows with each tenant.
    SELECT tab.oid, tab.relname, tab.relkind
    FROM pg_catalog.pg_namespace AS space
    JOIN pg_catalog.pg_depend AS uses ON uses.refobjid OPERATOR(pg_catalog.=) space.oid
        AND uses.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
        AND uses.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
    JOIN pg_catalog.pg_class AS tab ON tab.oid OPERATOR(pg_catalog.=) uses.objid
    WHERE space.nspname OPERATOR(pg_catalog.=) {schema}
)
SELECT 'CONNECT', pg_catalog.format('DATABASE %I', pg_catalog.current_database())
WHERE NOT pg_catalog.has_database_privilege({role}, pg_catalog.current_database(), 'CONNECT')
UNION ALL
SELECT 'USAGE', pg_catalog.format('SCHEMA %I', asked.name)
FROM pg_catalog.unnest({spaces}::pg_catalog.text[]) AS asked (name)
WHERE NOT pg_catalog.has_schema_privilege({role}, asked.name, 'USAGE')
UNION ALL
SELECT pg_catalog.string_agg(wanted.privilege, ', ' ORDER BY wanted.privilege), pg_catalog.format('TABLE %I.%I', {schema}, tab.relname)
FROM own AS tab
CROSS JOIN pg_catalog.unnest('{{SELECT,INSERT,UPDATE,DELETE}}'::pg_catalog.text[]) AS wanted (privilege)
WHERE tab.relkind OPERATOR(pg_catalog.=) ANY ('{{r,p,v,m,f}}'::pg_catalog."char"[])
    AND NOT pg_catalog.has_table_privilege({role}, tab.oid, wanted.privilege)
GROUP BY tab.relname
UNION ALL
SELECT pg_catalog.string_agg(wanted.privilege, ', ' ORDER BY wanted.privilege), pg_catalog.format('SEQUENCE %I.%I', {schema}, tab.relname)
FROM own AS tab
CROSS JOIN pg_catalog.unnest('{{USAGE,SELECT}}'::pg_catalog.text[]) AS wanted (privilege)
WHERE tab.relkind OPERATOR(pg_catalog.=) 'S'
    AND NOT pg_catalog.has_sequence_privilege({role}, tab.oid, wanted.privilege)
GROUP BY tab.relname
UNION ALL
SELECT 'SELECT', pg_catalog.concat('TABLE ', asked.path)
FROM pg_catalog.unnest({readable}::pg_catalog.text[]) AS asked (path)
WHERE NOT pg_catalog.has_table_privilege({role}, asked.path, 'SELECT')
UNION ALL
SELECT pg_catalog.string_agg(wanted.privilege, ', ' ORDER BY wanted.privilege), pg_catalog.concat('TABLE ', asked.path)
FROM pg_catalog.unnest({writable}::pg_catalog.text[]) AS asked (path)
CROSS JOIN pg_catalog.unnest('{{SELECT,INSERT,UPDATE,DELETE}}'::pg_catalog.text[]) AS wanted (privilege)
WHERE NOT pg_catalog.has_table_privilege({role}, asked.path, wanted.privilege)
GROUP BY asked.path
ORDER BY 2

-- Return the objects that the grants for a tenant's role depend on: their kind, name, and whether it is as it must be.
--
-- {schema}    the tenant's schema, a literal
-- {spaces}    the schemas that all tenants share: the public one and those that the project adds to the search path
-- {tables}    the shared tables, qualified and quoted
-- {writable}  those of them that tenants may write
--
-- Kinds: 'own table', 'own sequence': one in the tenant's schema, quoted. 'creator': a role that owns objects in the tenant's schema; whether the current role has its rights. 'schema': one of {spaces};
-- whether it is there. 'table': one of {tables}; whether it is there. 'read by all': one of {tables} with a grant of
-- SELECT to PUBLIC. 'sequence': one that a column of a writable table takes numbers from.
-- 'function': one of an extension in {spaces} that the extension offers to all, but this server does not; whether the current role may
-- grant it. 'closed': the tenant's schema or one of {spaces}; whether nobody may create objects in it through PUBLIC. 'database': the
-- database; whether the current role has its owner's rights.
WITH own AS MATERIALIZED (
    -- By what depends on the schema, for which there is an index; pg_class has none by schema, and grows with each tenant.
    SELECT tab.relname, tab.relkind, tab.relowner
    FROM pg_catalog.pg_namespace AS space
    JOIN pg_catalog.pg_depend AS uses ON uses.refobjid OPERATOR(pg_catalog.=) space.oid
        AND uses.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
        AND uses.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
    JOIN pg_catalog.pg_class AS tab ON tab.oid OPERATOR(pg_catalog.=) uses.objid
    WHERE space.nspname OPERATOR(pg_catalog.=) {schema} AND tab.relkind OPERATOR(pg_catalog.=) ANY ('{{r,p,v,m,f,S}}'::pg_catalog."char"[])
)
SELECT CASE own.relkind WHEN 'S' THEN 'own sequence' ELSE 'own table' END AS kind, pg_catalog.format('%I.%I', {schema}, own.relname) AS name,
    true AS fits
FROM own
UNION ALL
SELECT 'creator', role.rolname::pg_catalog.text, pg_catalog.pg_has_role(role.oid, 'USAGE')
FROM pg_catalog.pg_roles AS role
WHERE role.oid OPERATOR(pg_catalog.=) ANY (ARRAY(
    SELECT nspowner FROM pg_catalog.pg_namespace WHERE nspname OPERATOR(pg_catalog.=) {schema}
    UNION
    SELECT own.relowner FROM own
))
UNION ALL
SELECT 'schema', asked.name, space.oid IS NOT NULL
FROM pg_catalog.unnest({spaces}::pg_catalog.text[]) AS asked (name)
LEFT JOIN pg_catalog.pg_namespace AS space ON space.nspname OPERATOR(pg_catalog.=) asked.name
UNION ALL
SELECT 'table', asked.path, pg_catalog.to_regclass(asked.path) IS NOT NULL
FROM pg_catalog.unnest({tables}::pg_catalog.text[]) AS asked (path)
UNION ALL
SELECT 'read by all', asked.path, true
FROM pg_catalog.unnest({tables}::pg_catalog.text[]) AS asked (path)
JOIN pg_catalog.pg_class AS tab ON tab.oid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(asked.path)
WHERE EXISTS (
    SELECT FROM pg_catalog.aclexplode(tab.relacl) AS acl
    WHERE acl.grantee OPERATOR(pg_catalog.=) 0 AND acl.privilege_type OPERATOR(pg_catalog.=) 'SELECT'
)
UNION ALL
SELECT 'sequence', pg_catalog.format('%I.%I', space.nspname, sequence.relname), true
FROM pg_catalog.unnest({writable}::pg_catalog.text[]) AS asked (path)
JOIN pg_catalog.pg_depend AS uses ON uses.refobjid OPERATOR(pg_catalog.=) pg_catalog.to_regclass(asked.path)
    AND uses.deptype OPERATOR(pg_catalog.=) 'a' AND uses.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
JOIN pg_catalog.pg_class AS sequence ON sequence.oid OPERATOR(pg_catalog.=) uses.objid AND sequence.relkind OPERATOR(pg_catalog.=) 'S'
JOIN pg_catalog.pg_namespace AS space ON space.oid OPERATOR(pg_catalog.=) sequence.relnamespace
UNION ALL
SELECT 'function', function.oid::pg_catalog.regprocedure::pg_catalog.text, pg_catalog.pg_has_role(function.proowner, 'USAGE')
FROM pg_catalog.pg_proc AS function
JOIN pg_catalog.pg_namespace AS space ON space.oid OPERATOR(pg_catalog.=) function.pronamespace
JOIN pg_catalog.pg_depend AS part ON part.objid OPERATOR(pg_catalog.=) function.oid
    AND part.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass AND part.deptype OPERATOR(pg_catalog.=) 'e'
WHERE space.nspname OPERATOR(pg_catalog.=) ANY ({spaces}::pg_catalog.text[])
    AND NOT EXISTS (
        SELECT FROM pg_catalog.aclexplode(COALESCE(function.proacl, pg_catalog.acldefault('f', function.proowner))) AS acl
        WHERE acl.grantee OPERATOR(pg_catalog.=) 0
    )
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_init_privs AS given
        WHERE given.objoid OPERATOR(pg_catalog.=) function.oid AND given.classoid OPERATOR(pg_catalog.=) part.classid
    )
UNION ALL
SELECT 'closed', space.nspname, NOT EXISTS (
    SELECT FROM pg_catalog.aclexplode(space.nspacl) AS acl
    WHERE acl.grantee OPERATOR(pg_catalog.=) 0 AND acl.privilege_type OPERATOR(pg_catalog.=) 'CREATE'
)
FROM pg_catalog.pg_namespace AS space
WHERE space.nspname OPERATOR(pg_catalog.=) ANY ({spaces}::pg_catalog.text[] OPERATOR(pg_catalog.||) {schema}::pg_catalog.text)
UNION ALL
SELECT 'database', base.datname::pg_catalog.text, pg_catalog.pg_has_role(base.datdba, 'USAGE')
FROM pg_catalog.pg_database AS base
WHERE base.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
ORDER BY 1, 2

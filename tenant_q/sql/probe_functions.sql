-- The functions and procedures of the database, for probe_rights.sql. PUBLIC may execute a function by default. It runs with the
-- rights of its caller, unless it is SECURITY DEFINER. Some of PostgreSQL's own and of extensions are for nobody but superusers.
-- The others of extensions are for all tenants.
--
-- {shared}  the OIDs of the schemas that all tenants' search paths contain
SELECT fun.oid, 0::int2 AS part, fun.proname::text AS name, fun.pronamespace AS space, fun.proowner AS owner,
    COALESCE(fun.proacl, acldefault('f', fun.proowner)) AS acl,
    format('%s %s', CASE fun.prokind WHEN 'p' THEN 'PROCEDURE' ELSE 'FUNCTION' END, fun.oid::regprocedure) AS target, '' AS columns,
    CASE
        WHEN initial.initprivs IS NOT NULL THEN ARRAY(
            SELECT entry.privilege_type FROM aclexplode(initial.initprivs) AS entry WHERE entry.grantee = 0
        )
        WHEN fun.prosecdef AND space.nspname <> 'pg_catalog' AND part.objid IS NULL THEN '{{}}'::text[]
        ELSE '{{EXECUTE}}'
    END AS public,
    CASE WHEN part.objid IS NOT NULL AND initial.initprivs IS NULL AND fun.pronamespace = ANY ({shared}::oid[])
        THEN '{{EXECUTE}}'::text[] ELSE '{{}}' END AS shared, '{{}}'::text[] AS warned
FROM pg_proc AS fun JOIN pg_namespace AS space ON space.oid = fun.pronamespace
LEFT JOIN pg_init_privs AS initial ON initial.classoid = 'pg_proc'::regclass AND initial.objoid = fun.oid AND initial.objsubid = 0
LEFT JOIN pg_depend AS part ON part.classid = 'pg_proc'::regclass AND part.objid = fun.oid AND part.deptype = 'e'

-- The tables, views and foreign tables of the database, for probe_rights.sql. The catalogues are for PUBLIC, with the exceptions
-- that PostgreSQL makes. The information schema shows everybody only what is open to them.
--
-- {readable}  the OIDs of the shared tables that tenants' roles may read
-- {writable}  the OIDs of those that they may read and write
SELECT tab.oid, 0::int2 AS part, tab.relname::text AS name, tab.relnamespace AS space, tab.relowner AS owner,
    COALESCE(tab.relacl, acldefault('r', tab.relowner)) AS acl, format('TABLE %I.%I', space.nspname, tab.relname) AS target,
    '' AS columns, ARRAY(
        SELECT entry.privilege_type FROM pg_init_privs AS initial CROSS JOIN aclexplode(initial.initprivs) AS entry
        WHERE initial.classoid = 'pg_class'::regclass AND initial.objoid = tab.oid AND initial.objsubid = 0 AND entry.grantee = 0
    ) || CASE space.nspname WHEN 'information_schema' THEN '{{SELECT}}'::text[] ELSE '{{}}' END AS public,
    CASE
        WHEN tab.oid = ANY ({writable}::oid[]) THEN '{{SELECT,INSERT,UPDATE,DELETE}}'::text[]
        WHEN tab.oid = ANY ({readable}::oid[]) THEN '{{SELECT}}'
        ELSE '{{}}'
    END AS shared, '{{}}'::text[] AS warned
FROM pg_class AS tab JOIN pg_namespace AS space ON space.oid = tab.relnamespace
WHERE tab.relkind IN ('r', 'p', 'v', 'm', 'f') AND tab.relpersistence <> 't'

-- The sequences of the database, for probe_rights.sql. Those of shared tables are shared as these are.
--
-- {writable}  the OIDs of the shared tables that tenants' roles may read and write
SELECT seq.oid, 0::int2 AS part, seq.relname::text AS name, seq.relnamespace AS space, seq.relowner AS owner,
    COALESCE(seq.relacl, acldefault('s', seq.relowner)) AS acl, format('SEQUENCE %I.%I', space.nspname, seq.relname) AS target,
    '' AS columns, ARRAY(
        SELECT entry.privilege_type FROM pg_init_privs AS initial CROSS JOIN aclexplode(initial.initprivs) AS entry
        WHERE initial.classoid = 'pg_class'::regclass AND initial.objoid = seq.oid AND initial.objsubid = 0 AND entry.grantee = 0
    ) AS public,
    CASE WHEN EXISTS (
        SELECT FROM pg_depend AS used
        WHERE used.classid = 'pg_class'::regclass AND used.objid = seq.oid AND used.refclassid = 'pg_class'::regclass
            AND used.deptype IN ('a', 'i') AND used.refobjid = ANY ({writable}::oid[])
    ) THEN '{{USAGE,SELECT}}'::text[] ELSE '{{}}' END AS shared, '{{}}'::text[] AS warned
FROM pg_class AS seq JOIN pg_namespace AS space ON space.oid = seq.relnamespace
WHERE seq.relkind = 'S' AND seq.relpersistence <> 't'

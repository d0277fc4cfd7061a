-- The columns of the database's tables that have an access control list of their own, for probe_rights.sql.
-- On all others nobody has more than on the table.
SELECT tab.oid, col.attnum AS part, col.attname::text AS name, tab.relnamespace AS space, tab.relowner AS owner,
    col.attacl AS acl, format('TABLE %I.%I', space.nspname, tab.relname) AS target, format(' (%I)', col.attname) AS columns,
    ARRAY(
        SELECT entry.privilege_type FROM pg_init_privs AS initial CROSS JOIN aclexplode(initial.initprivs) AS entry
        WHERE initial.classoid = 'pg_class'::regclass AND initial.objoid = tab.oid AND initial.objsubid = col.attnum AND entry.grantee = 0
    ) AS public, '{{}}'::text[] AS shared, '{{}}'::text[] AS warned
FROM pg_attribute AS col JOIN pg_class AS tab ON tab.oid = col.attrelid JOIN pg_namespace AS space ON space.oid = tab.relnamespace
WHERE col.attacl IS NOT NULL AND NOT col.attisdropped AND tab.relpersistence <> 't'

-- The schemas of the database, for probe_rights.sql, without those of temporary tables.
--
-- {shared}  the OIDs of the schemas that all tenants' search paths contain
SELECT space.oid, 0::int2 AS part, space.nspname::text AS name, space.oid AS space, space.nspowner AS owner,
    COALESCE(space.nspacl, acldefault('n', space.nspowner)) AS acl, format('SCHEMA %I', space.nspname) AS target, '' AS columns,
    ARRAY(
        SELECT entry.privilege_type FROM pg_init_privs AS initial CROSS JOIN aclexplode(initial.initprivs) AS entry
        WHERE initial.classoid = 'pg_namespace'::regclass AND initial.objoid = space.oid AND initial.objsubid = 0 AND entry.grantee = 0
    )
        || CASE
            WHEN space.oid = ANY ({shared}::oid[]) OR space.nspname = 'information_schema' THEN '{{USAGE}}'::text[] ELSE '{{}}'
        END AS public,
    CASE WHEN space.oid = ANY ({shared}::oid[]) THEN '{{USAGE}}'::text[] ELSE '{{}}' END AS shared, '{{}}'::text[] AS warned
FROM pg_namespace AS space
WHERE NOT starts_with(space.nspname, 'pg_temp_') AND NOT starts_with(space.nspname, 'pg_toast')

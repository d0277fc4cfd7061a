-- The foreign servers of the database, for probe_rights.sql.
SELECT server.oid, 0::int2 AS part, server.srvname::text AS name, 0::oid AS space, server.srvowner AS owner,
    COALESCE(server.srvacl, acldefault('S', server.srvowner)) AS acl, format('FOREIGN SERVER %I', server.srvname) AS target,
    '' AS columns, '{{}}'::text[] AS public, '{{}}'::text[] AS shared, '{{}}'::text[] AS warned
FROM pg_foreign_server AS server

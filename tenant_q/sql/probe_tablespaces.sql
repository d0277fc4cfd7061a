-- The tablespaces of the server, for probe_rights.sql.
SELECT place.oid, 0::int2 AS part, place.spcname::text AS name, 0::oid AS space, place.spcowner AS owner,
    COALESCE(place.spcacl, acldefault('t', place.spcowner)) AS acl, format('TABLESPACE %I', place.spcname) AS target,
    '' AS columns, '{{}}'::text[] AS public, '{{}}'::text[] AS shared, '{{}}'::text[] AS warned
FROM pg_tablespace AS place

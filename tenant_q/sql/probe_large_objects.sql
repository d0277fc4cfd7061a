-- The large objects of the database that are open to others than their owners, for probe_rights.sql.
SELECT large.oid, 0::int2 AS part, large.oid::text AS name, 0::oid AS space, large.lomowner AS owner, large.lomacl AS acl,
    format('LARGE OBJECT %s', large.oid) AS target, '' AS columns, '{{}}'::text[] AS public, '{{}}'::text[] AS shared,
    '{{}}'::text[] AS warned
FROM pg_largeobject_metadata AS large
WHERE large.lomacl IS NOT NULL

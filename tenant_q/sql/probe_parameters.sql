-- The parameters of the server on which somebody was granted a right, for probe_rights.sql. A superuser owns all of them.
SELECT given.oid, 0::int2 AS part, given.parname AS name, 0::oid AS space, 10::oid AS owner, given.paracl AS acl,
    format('PARAMETER %s', given.parname) AS target, '' AS columns, '{{}}'::text[] AS public, '{{}}'::text[] AS shared,
    '{{}}'::text[] AS warned
FROM pg_parameter_acl AS given

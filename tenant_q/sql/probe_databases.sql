-- The databases of the server, for probe_rights.sql. PUBLIC may connect to a database by default.
SELECT base.oid, 0::int2 AS part, base.datname::text AS name, 0::oid AS space, base.datdba AS owner,
    COALESCE(base.datacl, acldefault('d', base.datdba)) AS acl, format('DATABASE %I', base.datname) AS target, '' AS columns,
    CASE base.datname WHEN current_database() THEN '{{CONNECT,TEMPORARY}}'::text[] ELSE '{{}}' END AS public,
    CASE base.datname WHEN current_database() THEN '{{CONNECT,TEMPORARY}}'::text[] ELSE '{{}}' END AS shared,
    '{{CONNECT,TEMPORARY}}'::text[] AS warned
FROM pg_database AS base
WHERE base.datallowconn

-- The languages of the database, for probe_rights.sql. PUBLIC may use a language by default. If it is not trusted, only superusers may.
SELECT lang.oid, 0::int2 AS part, lang.lanname::text AS name, 0::oid AS space, lang.lanowner AS owner,
    COALESCE(lang.lanacl, acldefault('l', lang.lanowner)) AS acl, format('LANGUAGE %I', lang.lanname) AS target, '' AS columns,
    '{{USAGE}}'::text[] AS public, '{{}}'::text[] AS shared, '{{}}'::text[] AS warned
FROM pg_language AS lang

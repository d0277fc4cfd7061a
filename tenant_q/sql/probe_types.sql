-- The types and domains of the database, for probe_rights.sql, without arrays and multiranges, which have the rights of their
-- elements. PUBLIC may use a type by default, where it may use its schema.
SELECT kind.oid, 0::int2 AS part, kind.typname::text AS name, kind.typnamespace AS space, kind.typowner AS owner,
    COALESCE(kind.typacl, acldefault('T', kind.typowner)) AS acl, format('TYPE %I.%I', space.nspname, kind.typname) AS target,
    '' AS columns, '{{USAGE}}'::text[] AS public, '{{}}'::text[] AS shared, '{{}}'::text[] AS warned
FROM pg_type AS kind JOIN pg_namespace AS space ON space.oid = kind.typnamespace
WHERE kind.typtype <> 'm' AND NOT starts_with(space.nspname, 'pg_temp_') AND NOT starts_with(space.nspname, 'pg_toast')
    AND NOT EXISTS (SELECT FROM pg_type AS element WHERE element.typarray = kind.oid)

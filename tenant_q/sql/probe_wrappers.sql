-- The foreign-data wrappers of the database, for probe_rights.sql.
SELECT wrapper.oid, 0::int2 AS part, wrapper.fdwname::text AS name, 0::oid AS space, wrapper.fdwowner AS owner,
    COALESCE(wrapper.fdwacl, acldefault('F', wrapper.fdwowner)) AS acl,
    format('FOREIGN DATA WRAPPER %I', wrapper.fdwname) AS target, '' AS columns, '{{}}'::text[] AS public,
    '{{}}'::text[] AS shared, '{{}}'::text[] AS warned
FROM pg_foreign_data_wrapper AS wrapper

-- Do the same as verify_schema.sql, and also return whether the task table has all its columns, and its rights.
--
-- {path}     the search path, its names quoted
-- {table}    the task table, qualified and quoted
-- {columns}  the names of its columns
-- {rights}   the expression of rights.sql
-- {key}, {tenants}, {name}, {reset}, {role}  as in verify_schema.sql
SELECT {reset}, pg_catalog.set_config('search_path', {path}, false);
SELECT pg_catalog.current_schema(), found.id::pg_catalog.int8, (
    SELECT pg_catalog.count(*) OPERATOR(pg_catalog.=) pg_catalog.cardinality({columns}::pg_catalog.text[])
    FROM pg_catalog.pg_attribute
    WHERE attrelid OPERATOR(pg_catalog.=) found.id
        AND attname OPERATOR(pg_catalog.=) ANY ({columns}::pg_catalog.text[]) AND NOT attisdropped
), {rights},
    (SELECT {key}::pg_catalog.text FROM {tenants} WHERE schema_name OPERATOR(pg_catalog.=) {name}),
    {role}
FROM (SELECT pg_catalog.to_regclass({table})::pg_catalog.oid AS id) AS found

-- As verify_schema.sql, and say besides whether the task table has all its columns.
--
-- {path}     the search path, its names quoted
-- {table}    the task table, qualified and quoted
-- {columns}  the names of its columns
-- {key}, {tenants}, {name}  as in verify_schema.sql
SELECT set_config('search_path', {path}, false);
SELECT current_schema(), found.id::bigint, (
    SELECT count(*) = cardinality({columns}::text[])
    FROM pg_catalog.pg_attribute
    WHERE attrelid = found.id AND attname = ANY ({columns}::text[]) AND NOT attisdropped
), (SELECT {key}::text FROM {tenants} WHERE schema_name = {name})
FROM (SELECT to_regclass({table})::oid AS id) AS found

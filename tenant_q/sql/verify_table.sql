-- As verify_schema.sql, and say besides whether the task table has all its columns.
--
-- {path}     the search path, its names quoted
-- {table}    the task table, qualified and quoted
-- {columns}  the names of its columns
SELECT set_config('search_path', {path}, false);
SELECT current_schema(), found.id::bigint, (
    SELECT count(*) = cardinality({columns}::text[])
    FROM pg_catalog.pg_attribute
    WHERE attrelid = found.id AND attname = ANY ({columns}::text[]) AND NOT attisdropped
)
FROM (SELECT to_regclass({table})::oid AS id) AS found

-- Read failed tasks of one tenant, to find their causes.
--
-- {table}  the schema-qualified table
-- ids      the ids of the tasks
-- most     the largest result that is read, and about the most of all results together, in bytes
--
-- A larger result is null. is_left says that a row has to be read by a later statement, because the results of those before it are
-- large together.
SELECT id, func, hook, cluster, "group",
    CASE WHEN size OPERATOR(pg_catalog.<=) %(most)s THEN result END AS result,
    total OPERATOR(pg_catalog.-) size OPERATOR(pg_catalog.>=) %(most)s AS is_left
FROM (
    SELECT id, func, hook, cluster, "group", result, size, pg_catalog.sum(size) OVER (ORDER BY id) AS total
    FROM (
        SELECT id, func, hook, cluster, "group", result,
            COALESCE(pg_catalog.octet_length(result), 0)::pg_catalog.int8 AS size
        FROM {table}
        WHERE id OPERATOR(pg_catalog.=) ANY (%(ids)s) AND NOT success
    ) AS failed
) AS summed

-- Raise the epoch of a cluster's broker by one, and note the highest number that the broker is known to have held.
--
-- {table}    the epochs
-- {cluster}  the cluster
-- {written}  the number that the broker held after this process wrote to it last; 0 if it has not
-- Returns    the new number, and the highest one that the broker is known to have held before
INSERT INTO {table} AS held (cluster, number, written)
VALUES ({cluster}, {written}::pg_catalog.int8 OPERATOR(pg_catalog.+) 1::pg_catalog.int8, {written}::pg_catalog.int8)
ON CONFLICT (cluster) DO UPDATE SET
    number = GREATEST(held.number, EXCLUDED.written) OPERATOR(pg_catalog.+) 1::pg_catalog.int8,
    written = GREATEST(held.written, EXCLUDED.written)
RETURNING number, written

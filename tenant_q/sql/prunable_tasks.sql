-- Find the oldest successes of one tenant beyond the number to keep, in portions.
--
-- {table}      the schema-qualified table
-- {partition}  the column of save_limit_per, or a constant: the number counts for each of its values
-- limit        how many successes are kept
-- portion      the most successes to find
-- spared       rows saved after this moment stay, because a redelivered package finds its row before it runs
SELECT id
FROM (
    SELECT id, stopped, pg_catalog.row_number() OVER (PARTITION BY {partition} ORDER BY stopped DESC) AS age
    FROM ONLY {table}
    WHERE success
) AS successes
WHERE age OPERATOR(pg_catalog.>) %(limit)s AND stopped OPERATOR(pg_catalog.<) %(spared)s
LIMIT %(portion)s

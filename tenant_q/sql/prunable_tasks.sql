-- Find the oldest successes, or failures, of one tenant beyond the number to keep, in portions.
--
-- {table}      the schema-qualified table
-- {kind}       the condition for the rows that count: successes or failures
-- {partition}  the column of save_limit_per, or a constant: the number counts for each of its values
-- {rows}       how many are kept
-- {spared}     rows saved after this moment stay, because a redelivered package finds its row before it runs
-- {may_go}     the condition on which a row may be deleted
-- {portion}    the most rows to find
SELECT id
FROM (
    SELECT id, stopped, pg_catalog.row_number() OVER (PARTITION BY {partition} ORDER BY stopped DESC) AS age
    FROM ONLY {table}
    WHERE {kind}
) AS task
WHERE age OPERATOR(pg_catalog.>) {rows} AND stopped OPERATOR(pg_catalog.<) {spared} AND {may_go}
LIMIT {portion}

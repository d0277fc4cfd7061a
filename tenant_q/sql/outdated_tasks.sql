-- Find the successes, or failures, of one tenant that ended too long ago to be kept, in portions.
--
-- {table}     the schema-qualified table
-- {kind}      the condition for successes or failures
-- {outdated}  the moment before which they ended
-- {spared}    rows saved after this moment stay, because a redelivered package finds its row before it runs
-- {may_go}    the condition on which a row may be deleted
-- {portion}   the most rows to find
SELECT id
FROM ONLY {table} AS task
WHERE {kind} AND stopped OPERATOR(pg_catalog.<) {outdated} AND stopped OPERATOR(pg_catalog.<) {spared} AND {may_go}
LIMIT {portion}

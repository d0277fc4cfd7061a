-- What is due for a cluster, the longest due first, and what is due next.
--
-- {table}     the due index
-- {clusters}  a list of the clusters whose schedules are served; '' are those that name none
-- {but}       schemas whose due ones are left out
-- {limit}     how many due ones at most
-- Returns     schemas, each with the seconds until its first one is due (0 or less: it is), and how many were looked at;
--             those that are not due yet come last
SELECT found.schema_name, EXTRACT(EPOCH FROM pg_catalog.min(found.due) OPERATOR(pg_catalog.-) pg_catalog.now())::pg_catalog.float8 AS seconds,
    pg_catalog.count(*) AS number
FROM pg_catalog.unnest({clusters}::pg_catalog.text[]) AS served (name) CROSS JOIN LATERAL (
    (SELECT schema_name, due, false AS is_later FROM {table}
     WHERE cluster OPERATOR(pg_catalog.=) served.name AND due OPERATOR(pg_catalog.<=) pg_catalog.now()
        AND schema_name OPERATOR(pg_catalog.<>) ALL ({but}::pg_catalog.text[]) ORDER BY due LIMIT {limit})
    UNION ALL
    (SELECT schema_name, due, true AS is_later FROM {table}
     WHERE cluster OPERATOR(pg_catalog.=) served.name AND due OPERATOR(pg_catalog.>) pg_catalog.now() ORDER BY due LIMIT 1)
) AS found
GROUP BY found.schema_name, found.is_later
ORDER BY seconds

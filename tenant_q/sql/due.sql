-- Find the schemas with due schedules of a cluster, the longest due first, and the schema that is due next.
--
-- {table}     the due index
-- {clusters}  a list of the clusters whose schedules are served; '' stands for schedules that name none
-- {but}       schemas whose due schedules are left out
-- {limit}     the most due schedules to read
-- Returns     schemas, each with the seconds until its first schedule is due (0 or less: it is due), and the number of its
--             schedules that were read; schemas that are not due yet come last
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

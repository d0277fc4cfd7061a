-- What is due for a cluster, the longest due first, and what is due next.
--
-- {table}     the due index
-- {clusters}  a list of the clusters whose schedules are served; '' are those that name none
-- {but}       schemas whose due ones are left out
-- {limit}     how many due ones at most
-- Returns     schemas, each with the seconds until its first one is due (0 or less: it is), and how many were looked at;
--             those that are not due yet come last
SELECT found.schema_name, EXTRACT(EPOCH FROM min(found.due) - now())::float8 AS seconds, count(*) AS number
FROM unnest({clusters}::text[]) AS served (name) CROSS JOIN LATERAL (
    (SELECT schema_name, due, false AS is_later FROM {table}
     WHERE cluster = served.name AND due <= now() AND schema_name <> ALL ({but}::text[]) ORDER BY due LIMIT {limit})
    UNION ALL
    (SELECT schema_name, due, true AS is_later FROM {table}
     WHERE cluster = served.name AND due > now() ORDER BY due LIMIT 1)
) AS found
GROUP BY found.schema_name, found.is_later
ORDER BY seconds

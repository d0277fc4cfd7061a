-- Find the workflow runs of some clusters that the scheduler looks at now, the longest due first, with one range of the index; and
-- whether any run of them is open.
--
-- {table}     the due index of runs
-- {clusters}  a list of the clusters
-- {open}      a list of the states of open runs
-- {limit}     the most runs of a cluster to read
-- Returns     at least one row: whether a run is open, then schema, run and state of a due run, and the seconds until it is due (0
--             or less); these are null if there is none. The first run of a cluster that is not due yet comes too.
SELECT EXISTS (
        SELECT FROM {table} AS entry
        WHERE entry.cluster OPERATOR(pg_catalog.=) ANY ({clusters}::pg_catalog.text[])
            AND entry.state OPERATOR(pg_catalog.=) ANY ({open}::pg_catalog.text[])
    ) AS is_any_open, found.schema_name, found.run, found.state,
    EXTRACT(EPOCH FROM found.due OPERATOR(pg_catalog.-) pg_catalog.now())::pg_catalog.float8 AS seconds
FROM (SELECT) AS always LEFT JOIN (
    SELECT entry.* FROM pg_catalog.unnest({clusters}::pg_catalog.text[]) AS served (name) CROSS JOIN LATERAL (
        (SELECT schema_name, run, state, due FROM {table}
         WHERE cluster OPERATOR(pg_catalog.=) served.name AND due OPERATOR(pg_catalog.<=) pg_catalog.now()
         ORDER BY due LIMIT {limit})
        UNION ALL
        (SELECT schema_name, run, state, due FROM {table}
         WHERE cluster OPERATOR(pg_catalog.=) served.name AND due OPERATOR(pg_catalog.>) pg_catalog.now()
         ORDER BY due LIMIT 1)
    ) AS entry
) AS found ON true
ORDER BY found.due

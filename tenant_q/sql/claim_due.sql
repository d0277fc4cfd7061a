-- Lock and return the due schedules of one tenant that no other scheduler has locked, the longest due first. The statements
-- of several tenants are combined with UNION ALL.
--
-- {schema}    the tenant, returned with each row
-- {table}     its django_q_schedule
-- {columns}   the columns of Django-Q2's model
-- {clusters}  the clusters whose schedules are served; '' stands for schedules that name none
-- {limit}     the most schedules to return
-- Returns     the tenant, the present by the server's clock, and the columns
SELECT * FROM (
    SELECT {schema}::pg_catalog.text, pg_catalog.now(), {columns} FROM {table}
    WHERE COALESCE(cluster, '') OPERATOR(pg_catalog.=) ANY ({clusters}::pg_catalog.text[])
        AND repeats OPERATOR(pg_catalog.<>) 0
        -- what a client cannot read is left out, as in the index
        AND next_run OPERATOR(pg_catalog.>=) '0001-01-02' AND next_run OPERATOR(pg_catalog.<=) pg_catalog.now()
    ORDER BY next_run LIMIT {limit} FOR UPDATE SKIP LOCKED
) AS claimed

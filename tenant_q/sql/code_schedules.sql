-- Lock and return the schedules of one tenant that come from code, or have the name of one that does. The statements of
-- several tenants are combined with UNION ALL.
--
-- {schema}   the tenant, returned with each row
-- {table}    its django_q_schedule
-- {columns}  the columns of Django-Q2's model
-- {names}    the names of schedules
-- {ids}      the ids of schedules
-- Returns    the tenant and the columns, the oldest schedule first
SELECT * FROM (
    SELECT {schema}::pg_catalog.text, {columns} FROM {table}
    WHERE name OPERATOR(pg_catalog.=) ANY ({names}::pg_catalog.text[])
        OR id OPERATOR(pg_catalog.=) ANY ({ids}::pg_catalog.int8[])
    ORDER BY id FOR UPDATE
) AS found

-- Add a schedule that comes from code to one tenant.
--
-- {schema}   the tenant, returned with the id
-- {table}    its django_q_schedule
-- {columns}  the columns
-- {values}   their values
-- Returns    the tenant, the name of the schedule and its id
INSERT INTO {table} ({columns}) VALUES ({values}) RETURNING {schema}::pg_catalog.text, name, id

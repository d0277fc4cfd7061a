-- Read what the schedules of one tenant run, to compare it with what the tenant's staff may name.
--
-- {schema}  the schema's name, as a literal
-- {table}   the schema-qualified table
--
-- The columns are read as they are: an operator or a cast could be one that the owner of the table made.
SELECT {schema}, id, name, func, hook, kwargs, intended_date_kwarg, cluster FROM {table}

-- Read the functions, arguments and options of one tenant's schedules, to compare them with what its staff may name.
--
-- {schema}  the schema's name, as a literal
-- {table}   the schema-qualified table
--
-- The columns are read without operators and casts, which the owner of the table could have made.
SELECT {schema}, id, name, func, hook, args, kwargs, intended_date_kwarg, cluster FROM {table}

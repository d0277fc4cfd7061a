-- Return whether a table exists, in a schema that need not be the current one.
--
-- {table}  its name, qualified and quoted
SELECT pg_catalog.to_regclass({table}) IS NOT NULL

-- Read the plans of runs.
--
-- {runs}  the schema-qualified table
-- %s      the ids
SELECT id, plan FROM {runs} WHERE id = ANY (%s)

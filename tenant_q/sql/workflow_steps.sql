-- Read the steps of runs, without outputs and without items.
--
-- {steps}  the schema-qualified table
-- %s       the ids of the runs
SELECT run, name, state, generation, left(error, 500)
FROM {steps}
WHERE run = ANY (%s) AND index = -1

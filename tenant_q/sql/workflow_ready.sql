-- Read all steps and items of runs that are ready.
--
-- {steps}  the schema-qualified table
-- %s       the ids of the runs
SELECT run, name, index, generation, attempts, extract(epoch FROM wake_at - clock_timestamp())::float8
FROM {steps}
WHERE run = ANY (%s) AND state = 'ready'

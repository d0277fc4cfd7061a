-- Cancel the steps and items of a run that are neither ended nor ready.
--
-- {steps}  the schema-qualified table
-- %s       the id of the run
UPDATE {steps} SET state = 'cancelled', ended = clock_timestamp()
WHERE run = %s AND state IN ('waiting', 'parked', 'mapping') AND name <> 'on_end'

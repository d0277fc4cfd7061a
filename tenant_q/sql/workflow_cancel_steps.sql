-- Cancel the steps and items of a run that are neither ended nor ready. A step that waits for its items is cancelled when none
-- of them is ready any more.
--
-- {steps}  the schema-qualified table
-- %s       the id of the run
UPDATE {steps} SET state = 'cancelled', ended = clock_timestamp()
WHERE run = %s AND state IN ('waiting', 'parked') AND name <> 'on_end'

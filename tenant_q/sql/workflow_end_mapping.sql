-- End a step that has items, or that was to have some.
--
-- {steps}  the schema-qualified table
-- %s       its state, the reason, the most items at once or null, the run, the step, and the state that it must have
UPDATE {steps} SET state = %s, error = %s, at_once = coalesce(at_once, %s), ended = clock_timestamp()
WHERE run = %s AND name = %s AND index = -1 AND state = %s

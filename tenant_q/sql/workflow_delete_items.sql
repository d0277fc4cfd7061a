-- Delete the items of steps.
--
-- {steps}  the schema-qualified table
-- %s       the run and the steps
DELETE FROM {steps} WHERE run = %s AND name = ANY (%s) AND index >= 0

-- Let the items of steps that failed or were cancelled wait again.
--
-- {steps}  the schema-qualified table
-- %s       the generation, the run and the steps
UPDATE {steps} SET
    state = 'waiting', generation = %s, attempts = 0, output = NULL, context = NULL, error = '', wake_at = NULL,
    ready_at = NULL, started = NULL, ended = NULL
WHERE run = %s AND name = ANY (%s) AND index >= 0 AND state IN ('failed', 'cancelled')

-- Let steps wait again, as if they had never run.
--
-- {steps}  the schema-qualified table
-- %s       the generation, the run and the steps
UPDATE {steps} SET
    state = 'waiting', generation = %s, at_once = NULL, attempts = 0, output = NULL, context = NULL, error = '',
    task_id = NULL, wake_at = NULL, ready_at = NULL, started = NULL, ended = NULL
WHERE run = %s AND name = ANY (%s) AND index = -1

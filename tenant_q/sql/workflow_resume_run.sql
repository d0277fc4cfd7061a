-- Let an ended run go on, in a new generation. The next look at it is due at once, if nobody pushes its steps.
--
-- {runs}  the schema-qualified table
-- %s      its state, the seconds to its deadline or null, and its id
--
-- Returns the generation.
UPDATE {runs} SET
    state = %s, generation = generation + 1, ended = NULL, error = '',
    deadline = clock_timestamp() + make_interval(secs => %s), look_at = clock_timestamp()
WHERE id = %s
RETURNING generation

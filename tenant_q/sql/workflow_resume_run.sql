-- Let an ended run go on, in a new generation.
--
-- {runs}  the schema-qualified table
-- %s      its state, the seconds to its deadline or null, and its id
--
-- Returns the generation.
UPDATE {runs} SET
    state = %s, generation = generation + 1, ended = NULL, error = '',
    deadline = clock_timestamp() + make_interval(secs => %s), look_at = clock_timestamp() + interval '10 s'
WHERE id = %s
RETURNING generation

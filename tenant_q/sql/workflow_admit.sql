-- Let the oldest pending runs begin, as far as the limit allows.
--
-- {runs}  the schema-qualified table
-- %s      the most open runs, twice
--
-- Returns the ids of those that begin.
UPDATE {runs} SET state = 'running', started = clock_timestamp(), look_at = clock_timestamp() + interval '10 s'
WHERE id IN (
    SELECT id FROM {runs} WHERE state = 'pending' AND id IN (
        SELECT id FROM {runs} WHERE state = 'pending' ORDER BY created, id
        LIMIT greatest(0, %s - (SELECT count(*) FROM (
            SELECT FROM {runs} WHERE state IN ('running', 'cancelling') LIMIT %s
        ) AS open))
    )
    ORDER BY id  -- the order in which everyone locks runs
    FOR UPDATE
)
RETURNING id

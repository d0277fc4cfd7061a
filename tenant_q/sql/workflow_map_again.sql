-- Let steps wait for their items again; those that never had any wait to get some.
--
-- {steps}  the schema-qualified table
-- %s       the generation, the run and the steps, twice
WITH unmapped AS (
    UPDATE {steps} SET state = 'waiting', generation = %s, error = '', ended = NULL
    WHERE run = %s AND name = ANY (%s) AND index = -1 AND at_once IS NULL
)
UPDATE {steps} SET state = 'mapping', generation = %s, error = '', ended = NULL
WHERE run = %s AND name = ANY (%s) AND index = -1 AND at_once IS NOT NULL

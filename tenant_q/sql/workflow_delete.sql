-- Delete ended runs with their steps and signals.
--
-- {runs}, {steps}, {signals}  the schema-qualified tables
-- %s                          the ids
--
-- Returns the ids of the deleted runs.
WITH gone AS (
    DELETE FROM {runs} WHERE id = ANY (%s) AND ended IS NOT NULL RETURNING id
), steps AS (
    DELETE FROM {steps} USING gone WHERE run = gone.id
), signals AS (
    DELETE FROM {signals} USING gone WHERE run = gone.id
)
SELECT id FROM gone

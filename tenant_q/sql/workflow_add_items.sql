-- Write the items of a step, the first of them ready, and let the step wait for them.
--
-- {steps}  the schema-qualified table
-- %s       the most items at once, the run and the step; the keys that lead to the items, the run, the step that has them,
--          and all three again; the run and the step, the most items at once twice, and the generation
WITH step AS (
    UPDATE {steps} SET state = 'mapping', at_once = %s, started = clock_timestamp()
    WHERE run = %s AND name = %s AND index = -1 AND state = 'waiting'
), source AS (
    SELECT source.output #> %s::text[] AS items FROM {steps} AS source
    WHERE source.run = %s AND source.name = %s AND source.index = -1 AND source.at_once IS NULL
    UNION ALL
    SELECT (
        SELECT coalesce(jsonb_agg(item.output ORDER BY item.index), '[]') FROM {steps} AS item
        WHERE item.run = source.run AND item.name = source.name AND item.index >= 0
    ) #> %s::text[]
    FROM {steps} AS source
    WHERE source.run = %s AND source.name = %s AND source.index = -1 AND source.at_once IS NOT NULL
)
INSERT INTO {steps} (run, name, index, item, generation, state, attempts, error, ready_at)
SELECT %s, %s, (one.place - 1)::integer, one.item, %s, CASE WHEN one.place <= %s THEN 'ready' ELSE 'waiting' END, 0, '',
    CASE WHEN one.place <= %s THEN clock_timestamp() END
FROM source, jsonb_array_elements(source.items) WITH ORDINALITY AS one (item, place)

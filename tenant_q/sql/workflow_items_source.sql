-- Read how many items a step has: the type and the length of the value that its items come from.
--
-- {steps}  the schema-qualified table
-- %s       the keys that lead to the value, the run, the step that has it, and all three again
--
-- The output of a step that ran once for each item is the list of theirs.
SELECT jsonb_typeof(found.items), CASE jsonb_typeof(found.items) WHEN 'array' THEN jsonb_array_length(found.items) END
FROM (
    SELECT source.output #> %s::text[] AS items FROM {steps} AS source
    WHERE source.run = %s AND source.name = %s AND source.index = -1 AND source.at_once IS NULL
    UNION ALL
    SELECT (
        SELECT coalesce(jsonb_agg(item.output ORDER BY item.index), '[]') FROM {steps} AS item
        WHERE item.run = source.run AND item.name = source.name AND item.index >= 0
    ) #> %s::text[]
    FROM {steps} AS source
    WHERE source.run = %s AND source.name = %s AND source.index = -1 AND source.at_once IS NOT NULL
) AS found

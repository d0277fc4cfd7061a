-- Read what is needed of the items of steps that run once for each: a few index entries, however many items there are.
--
-- {steps}  the schema-qualified table
-- %s       the ids of the runs
SELECT step.run, step.name, step.at_once,
    (SELECT count(*) FROM (
        SELECT FROM {steps} AS item
        WHERE item.run = step.run AND item.name = step.name AND item.state = 'ready' AND item.index >= 0
        LIMIT step.at_once
    ) AS ready),
    ARRAY(
        SELECT item.index FROM {steps} AS item
        WHERE item.run = step.run AND item.name = step.name AND item.state = 'waiting' AND item.index >= 0
        ORDER BY item.index
        LIMIT step.at_once
    )
FROM {steps} AS step
WHERE step.run = ANY (%s) AND step.index = -1 AND step.state = 'mapping'

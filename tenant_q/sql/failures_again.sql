-- Note the ids of the new tasks that run failed tasks again.
--
-- {entries}  the table of the entries in the index of failures, qualified
-- %s         a JSON array with an object for each failed task: schema_name, task_id and again
UPDATE {entries} AS entry SET again = known.again
FROM pg_catalog.json_to_recordset(%s::pg_catalog.json) AS known (
    schema_name pg_catalog.text, task_id pg_catalog.text, again pg_catalog.text
)
WHERE entry.schema_name OPERATOR(pg_catalog.=) known.schema_name AND entry.task_id OPERATOR(pg_catalog.=) known.task_id

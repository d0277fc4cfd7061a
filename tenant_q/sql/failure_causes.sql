-- Add what a failed row does not show to its entry in the index of failures.
--
-- {entries}  the table of the entries, qualified
-- %s         a JSON array with an object for each failure: schema_name, task_id, stopped, cause and schedule
--
-- A trigger has written the entry together with the row. There is none with this end if the row was not written, because that of a
-- success or of a cancelled task stays.
UPDATE {entries} AS entry SET cause = known.cause, schedule = known.schedule, is_pending = false
FROM pg_catalog.json_to_recordset(%s::pg_catalog.json) AS known (
    schema_name pg_catalog.text, task_id pg_catalog.text, stopped pg_catalog.timestamptz, cause pg_catalog.text,
    schedule pg_catalog.text
)
WHERE entry.schema_name OPERATOR(pg_catalog.=) known.schema_name AND entry.task_id OPERATOR(pg_catalog.=) known.task_id
    AND entry.stopped OPERATOR(pg_catalog.=) known.stopped

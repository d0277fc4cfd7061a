-- Write finished tasks into one tenant's task table.
--
-- {table}    the schema-qualified table
-- {columns}  the columns that are written
-- {is_there} whether the tenant still has the schema; if not, nothing is written
-- {cancelled} the mark of a cancelled task's result
-- %s         a JSON array with an object for each task, whose keys are these columns
--
-- An existing row of a success or of a cancelled task stays; a row of any other failure is replaced by the later outcome.
INSERT INTO {table} AS task ({columns})
SELECT {columns} FROM pg_catalog.json_populate_recordset(NULL::{table}, %s::pg_catalog.json)
WHERE {is_there}
ON CONFLICT (id) DO UPDATE SET
    started = EXCLUDED.started,
    stopped = EXCLUDED.stopped,
    result = EXCLUDED.result,
    success = EXCLUDED.success,
    attempt_count = EXCLUDED.attempt_count
WHERE NOT task.success
    AND coalesce(pg_catalog.strpos(pg_catalog.substr(task.result, 1, 40), {cancelled}), 0) OPERATOR(pg_catalog.=) 0

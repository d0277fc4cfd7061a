-- Write finished tasks into one tenant's task table.
--
-- {table}    the schema-qualified table
-- {columns}  its columns, in the order of the values
-- {rows}     one tuple of values a task
--
-- A task that is there already keeps its first success; a failure gives way to what came later.
INSERT INTO {table} AS task ({columns})
VALUES {rows}
ON CONFLICT (id) DO UPDATE SET
    started = EXCLUDED.started,
    stopped = EXCLUDED.stopped,
    result = EXCLUDED.result,
    success = EXCLUDED.success,
    attempt_count = EXCLUDED.attempt_count
WHERE NOT task.success

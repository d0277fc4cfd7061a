-- Return details of schedules of one tenant for operators.
--
-- {schedules}, {tasks}  the tenant's tables
-- {ids}                 the ids of the schedules
-- Returns               id, name, function, type, minutes, cron text, keyword arguments, and whether the last task was a success; null if that
--                       task has no row
SELECT schedule.id, schedule.name, schedule.func, schedule.schedule_type, schedule.minutes, schedule.cron,
    schedule.kwargs, task.success
FROM {schedules} AS schedule LEFT JOIN {tasks} AS task ON task.id OPERATOR(pg_catalog.=) schedule.task
WHERE schedule.id OPERATOR(pg_catalog.=) ANY ({ids}::pg_catalog.int8[])

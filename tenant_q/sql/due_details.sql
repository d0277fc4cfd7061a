-- What an operator wants to know of some schedules of one tenant.
--
-- {schedules}, {tasks}  the tenant's tables
-- {ids}                 the schedules
-- Returns               id, name, function, type, minutes, cron text, and whether its last task was a success; null where
--                       that has no row (yet, or any more)
SELECT schedule.id, schedule.name, schedule.func, schedule.schedule_type, schedule.minutes, schedule.cron, task.success
FROM {schedules} AS schedule LEFT JOIN {tasks} AS task ON task.id OPERATOR(pg_catalog.=) schedule.task
WHERE schedule.id OPERATOR(pg_catalog.=) ANY ({ids}::pg_catalog.int8[])

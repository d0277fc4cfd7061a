-- The condition that a row, `task`, is not that of a schedule's last run, which is kept with the schedule.
--
-- {schedules}  the schema-qualified table of schedules
NOT EXISTS (SELECT FROM ONLY {schedules} AS schedule WHERE schedule.task OPERATOR(pg_catalog.=) task.id)

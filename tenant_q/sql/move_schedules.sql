-- Store the new state of schedules of one tenant that have fired.
--
-- {table}  its django_q_schedule
-- {rows}   a row for each schedule: id, next run, repeats, and the id of its task
UPDATE {table} AS row SET next_run = moved.next_run, repeats = moved.repeats, task = moved.task
FROM (VALUES {rows}) AS moved (id, next_run, repeats, task) WHERE row.id OPERATOR(pg_catalog.=) moved.id

-- Change a schedule that comes from code in one tenant.
--
-- {table}    its django_q_schedule
-- {changes}  columns and their new values
-- {id}       the id of the schedule
UPDATE {table} SET {changes} WHERE id OPERATOR(pg_catalog.=) {id}

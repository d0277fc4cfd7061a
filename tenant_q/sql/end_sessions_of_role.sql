-- End the sessions of a role, in every database of the server, and wait for each until it has ended.
--
-- {role}      the role
-- {patience}  the longest wait for one of them, in milliseconds
-- Returns     a row for each session, with whether it has ended
SELECT pg_catalog.pg_terminate_backend(pid, {patience}) FROM pg_catalog.pg_stat_activity
WHERE usename OPERATOR(pg_catalog.=) {role} AND pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()

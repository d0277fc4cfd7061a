-- End the sessions of a role in all databases of the server, and wait a little for each. The current role must have the role's rights.
--
-- {role}  the name of the role, a literal
-- {wait}  the longest wait for each session, in milliseconds
--
-- Returns the number of sessions that have not ended.
SELECT pg_catalog.count(*) FILTER (WHERE NOT ended.is_gone)
FROM (
    SELECT pg_catalog.pg_terminate_backend(pid, {wait}) AS is_gone
    FROM pg_catalog.pg_stat_activity
    WHERE usename OPERATOR(pg_catalog.=) {role}::pg_catalog.name
) AS ended

-- Undo what a task may have left in a session. `DISCARD ALL` would do the same, but not in one round trip with other
-- statements.
--
-- %s  the time zone that Django sets in the session
CLOSE ALL;
DEALLOCATE ALL;
SET SESSION AUTHORIZATION DEFAULT;
RESET ALL;
UNLISTEN *;
SELECT pg_catalog.pg_advisory_unlock_all();
DISCARD SEQUENCES;
DISCARD TEMP;
SELECT pg_catalog.set_config('TimeZone', %s, false)

-- Take back what a task may have left in a session. `DISCARD ALL` would do it too, but not together with other
-- statements in one round trip.
--
-- parameter: the time zone that Django wants in the session
CLOSE ALL;
DEALLOCATE ALL;
SET SESSION AUTHORIZATION DEFAULT;
RESET ALL;
UNLISTEN *;
SELECT pg_catalog.pg_advisory_unlock_all();
DISCARD SEQUENCES;
DISCARD TEMP;
SELECT pg_catalog.set_config('TimeZone', %s, false)

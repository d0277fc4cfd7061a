-- Make all open workflow runs of some clusters due: the first of them at once, the others spread over a time, in turns of the
-- tenants. An entry that is due earlier stays, so that a second scheduler changes nothing. Entries that are locked are left out: a
-- transaction of the tenant writes to them, and waiting for it could end in a deadlock.
--
-- {table}     the due index of runs
-- {clusters}  a list of the clusters
-- {open}      a list of the states of open runs
-- {at_once}   how many are due at once
-- {spread}    the seconds over which the others are spread
-- Returns     a row with the number of entries that were changed, then schema and run of each that was locked
WITH turns AS (
    SELECT entry.schema_name, entry.run, entry.due, pg_catalog.row_number() OVER (
        PARTITION BY entry.schema_name ORDER BY entry.due, entry.run
    ) AS turn
    FROM {table} AS entry
    WHERE entry.cluster OPERATOR(pg_catalog.=) ANY ({clusters}::pg_catalog.text[])
        AND entry.state OPERATOR(pg_catalog.=) ANY ({open}::pg_catalog.text[])
), places AS (
    SELECT turns.*, pg_catalog.row_number() OVER (ORDER BY turns.turn, turns.due, turns.schema_name) AS place,
        pg_catalog.count(*) OVER () AS number
    FROM turns
), planned AS (
    SELECT places.schema_name, places.run, pg_catalog.now() OPERATOR(pg_catalog.+) pg_catalog.make_interval(
        secs => {spread}::pg_catalog.float8
            OPERATOR(pg_catalog.*) GREATEST(0, places.place OPERATOR(pg_catalog.-) {at_once}::pg_catalog.int8)::pg_catalog.float8
            OPERATOR(pg_catalog./) GREATEST(1, places.number OPERATOR(pg_catalog.-) {at_once}::pg_catalog.int8)::pg_catalog.float8
    ) AS due, places.due AS former
    FROM places
), wanted AS (
    SELECT * FROM planned WHERE planned.former IS NULL OR planned.former OPERATOR(pg_catalog.>) planned.due
), free AS (
    SELECT entry.schema_name, entry.run, wanted.due
    FROM {table} AS entry JOIN wanted ON entry.schema_name OPERATOR(pg_catalog.=) wanted.schema_name
        AND entry.run OPERATOR(pg_catalog.=) wanted.run
    FOR UPDATE OF entry SKIP LOCKED
), changed AS (
    UPDATE {table} AS entry SET due = free.due FROM free
    WHERE entry.schema_name OPERATOR(pg_catalog.=) free.schema_name AND entry.run OPERATOR(pg_catalog.=) free.run
    RETURNING 1
)
SELECT NULL::pg_catalog.text AS schema_name, NULL::pg_catalog.text AS run, pg_catalog.count(*) AS number FROM changed
UNION ALL
SELECT wanted.schema_name, wanted.run, 0
FROM wanted LEFT JOIN free ON free.schema_name OPERATOR(pg_catalog.=) wanted.schema_name
    AND free.run OPERATOR(pg_catalog.=) wanted.run
WHERE free.run IS NULL

-- Return what the attempts of a probe are made on.
--
-- {spaces}     the OIDs of schemas of tenants
-- {public}     the public schema
-- {preferred}  the name of the table to attack, which most schemas have
-- {schedules}  the name of the table of schedules
-- {unlisted}   the name of a table in {public} that is never shared
--
-- Rows: one for each schema: its OID and name; its table and a column of it; its sequence; its table of schedules, or null
SELECT space.oid::int8, space.nspname::text, target.name AS "table", target.column AS "column", (
    SELECT seq.relname::text FROM pg_catalog.pg_class AS seq
    WHERE seq.relnamespace = space.oid AND seq.relkind = 'S' ORDER BY seq.relname LIMIT 1
) AS "sequence", (
    SELECT tab.relname::text FROM pg_catalog.pg_class AS tab WHERE tab.relnamespace = space.oid AND tab.relname = {schedules}
) AS schedules
FROM pg_catalog.pg_namespace AS space
LEFT JOIN LATERAL (
    SELECT tab.relname::text AS name, (
        SELECT col.attname::text FROM pg_catalog.pg_attribute AS col
        WHERE col.attrelid = tab.oid AND col.attnum > 0 AND NOT col.attisdropped AND col.attgenerated = '' AND col.attidentity <> 'a'
        ORDER BY col.attnum LIMIT 1
    ) AS "column"
    FROM pg_catalog.pg_class AS tab
    WHERE tab.relnamespace = space.oid AND tab.relkind IN ('r', 'p') AND (space.nspname <> {public} OR tab.relname = {unlisted})
    ORDER BY tab.relname <> {preferred}, tab.relname LIMIT 1
) AS target ON true
WHERE space.oid = ANY ({spaces}::oid[]) OR space.nspname = {public}

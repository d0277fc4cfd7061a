-- Return the OIDs of what all tenants share, as three lists: schemas, tables to read, tables to read and write.
--
-- {schemas}   the names of the schemas
-- {readable}  the tables, qualified and quoted
-- {writable}  the tables, qualified and quoted
SELECT ARRAY(SELECT oid::int8 FROM pg_catalog.pg_namespace WHERE nspname = ANY ({schemas}::text[])),
    ARRAY(SELECT path::regclass::oid::int8 FROM pg_catalog.unnest({readable}::text[]) AS listed (path)),
    ARRAY(SELECT path::regclass::oid::int8 FROM pg_catalog.unnest({writable}::text[]) AS listed (path))

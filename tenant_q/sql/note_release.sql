-- Note that a release of the schedules in code is seen for the first time, unless another process has noted it meanwhile, and
-- forget the oldest releases.
--
-- {table}     tenant_q_schedulerelease
-- {site}      the site
-- {label}     the release
-- {is_given}  whether the project named it
-- {oldest}    the ids of the releases to forget
WITH forgotten AS (DELETE FROM {table} WHERE id OPERATOR(pg_catalog.=) ANY ({oldest}::pg_catalog.int8[]))
INSERT INTO {table} (site, label, is_given, first_seen, last_seen)
VALUES ({site}, {label}, {is_given}, pg_catalog.statement_timestamp(), pg_catalog.statement_timestamp())
ON CONFLICT DO NOTHING

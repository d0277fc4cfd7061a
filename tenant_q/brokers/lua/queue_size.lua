-- Count a tenant's queued packages.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or ''
-- Returns  how many

return queued_of(queue_of(ARGV[1], ARGV[2]))

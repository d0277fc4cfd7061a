-- Count a tenant's packages that wait.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or ''
-- Returns  { how many are queued, how many are delayed }

local queue = queue_of(ARGV[1], ARGV[2])
return { queued_of(queue), delayed_of(queue) }

-- Where a tenant's package is, and whether it is to be given up.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 id
-- Returns  { its place, its verdict or '' }, or nothing where the tenant has no such package

local place = place_of(ARGV[1], ARGV[2])
return place and { place, redis.call('HGET', key('verdicts'), ARGV[2]) or '' } or {}

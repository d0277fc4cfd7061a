-- Count a tenant's packages by place. It reads nothing of other tenants.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or ''
-- Returns  { queued, leased, delayed, dead }

local queue = queue_of(ARGV[1], ARGV[2])
local leased = 0
for _, count in ipairs(redis.call('HVALS', key('running:' .. queue))) do
  leased = leased + (tonumber(count) or 0)
end
return { queued_of(queue), leased, delayed_of(queue), tonumber(redis.call('HGET', key('dead_of'), queue) or 0) }

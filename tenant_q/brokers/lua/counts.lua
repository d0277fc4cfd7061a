-- How many packages are where.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  { queued, leased, delayed, dead, queued of paused tenants, delayed until their tenant is there }

local leased, delayed, dead = redis.call('ZCARD', key('leases')), redis.call('ZCARD', key('delayed')),
  redis.call('ZCARD', key('dead'))
local paused = 0
for _, schema in ipairs(redis.call('HKEYS', key('policy'))) do
  if policy_of(schema).paused then
    paused = paused + redis.call('LLEN', key('queue:' .. schema))
  end
end
return { redis.call('HLEN', key('messages')) - leased - delayed - dead, leased, delayed, dead, paused,
  redis.call('SCARD', key('unready')) }

-- Count the packages by place.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  { queued, leased, delayed, dead, queued or delayed ones of paused tenants, other ones that are delayed until
--            their tenant is there }

local leased, delayed, dead = redis.call('ZCARD', key('leases')), redis.call('ZCARD', key('delayed')),
  redis.call('ZCARD', key('dead'))
local paused, delayed_of_paused, is_paused = 0, 0, {}
for _, schema in ipairs(redis.call('HKEYS', key('policy'))) do
  if policy_of(schema).paused then
    is_paused[schema] = true
    paused = paused + queued_of(schema)
    delayed_of_paused = delayed_of_paused + delayed_of(schema)
  end
end
local unready = redis.call('SCARD', key('unready'))
if delayed_of_paused > 0 and unready > 0 then
  for _, id in ipairs(redis.call('SMEMBERS', key('unready'))) do
    local schema = open_message(redis.call('HGET', key('messages'), id))
    unready = unready - (schema and is_paused[schema] and 1 or 0)
  end
end
local queued = math.max(0, redis.call('HLEN', key('messages')) - leased - delayed - dead)
return { queued, leased, delayed, dead,
  paused + delayed_of_paused, unready }

-- Return the figures of the last day of all tenants together.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  as day.lua, with all of <tag>:figures in place of a tenant's words, and <tag>:figure_places

local leased, delayed, dead = redis.call('ZCARD', key('leases')), redis.call('ZCARD', key('delayed')),
  redis.call('ZCARD', key('dead'))
local queued = math.max(0, redis.call('HLEN', key('messages')) - leased - delayed - dead)

local periods, now = unrecorded(function(name)
  return redis.call('GET', name) or ''
end, function(name)
  local sum = -tonumber(redis.call('HGET', name, '') or '0')
  for _, ms in ipairs(redis.call('HVALS', name)) do
    sum = sum + ms
  end
  return sum
end)

return { this_period(), redis.call('LRANGE', key('day'), 0, -1), periods, now, queued, functions_of_day(''),
  redis.call('HGETALL', key('figure_places')) }

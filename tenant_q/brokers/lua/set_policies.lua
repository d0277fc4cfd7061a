-- Put tenants' policies in force, on what is queued already too.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 '1' when tenants that are not named have no policy any more, then for each tenant six: schema, tenant or '',
--          weight, cap or 0, most that may wait or 0, paused ('1' or '0')
-- Returns  how many policies are in force

write_though_full()
local changed = {}
if ARGV[1] == '1' then
  for _, schema in ipairs(redis.call('HKEYS', key('policy'))) do
    changed[schema] = true
  end
  redis.call('DEL', key('policy'))
end
for i = 2, #ARGV, 6 do
  local schema, paused = claim_queue(ARGV[i], ARGV[i + 1]), ARGV[i + 5] == '1'
  redis.call('HSET', key('policy'), schema,
    cmsgpack.pack({ tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), paused }))
  changed[schema] = true
end
for schema in pairs(changed) do
  if is_held(schema) then
    redis.call('ZREM', key('ready'), schema)
  else
    enter_ring_again(schema)
  end
end
return redis.call('HLEN', key('policy'))

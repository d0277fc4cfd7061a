-- Put tenants' policies in force. Each also applies to packages already queued.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 number of tenants whose policy is removed, then the names of their queues, then for each other tenant six:
--          schema, tenant or '', weight, cap or 0, most that may wait or 0, paused ('1' or '0')
-- Returns  the names of the other tenants' queues

write_though_full()
local changed, weights = {}, {}
local function note_change(schema)
  if not changed[schema] then
    changed[schema], weights[schema] = true, policy_of(schema).weight
  end
end

-- Keep a tenant's debt in worker-seconds when its weight changes: with another weight it is another virtual time.
local function weigh_debt(schema)
  local weight = policy_of(schema).weight
  local own = weight ~= weights[schema] and redis.call('HGET', key('vtime'), schema)
  if own then
    local ring = tonumber(redis.call('GET', key('ring'))) or 0
    local start = ring + (tonumber(redis.call('HGET', key('ahead'), schema)) or 0)
    if tonumber(own) > start then
      own = start + (tonumber(own) - start) * weights[schema] / weight
      redis.call('HSET', key('vtime'), schema, own)
      redis.call('ZADD', key('ready'), 'XX', own, schema)
    end
  end
end

local queues, gone = {}, tonumber(ARGV[1])
for i = 2, gone + 1 do
  note_change(ARGV[i])
  redis.call('HDEL', key('policy'), ARGV[i])
end
for i = gone + 2, #ARGV, 6 do
  local schema, paused = claim_queue(ARGV[i], ARGV[i + 1]), ARGV[i + 5] == '1'
  note_change(schema)
  queues[#queues + 1] = schema
  redis.call('HSET', key('policy'), schema,
    cmsgpack.pack({ tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4]), paused }))
end
for schema in pairs(changed) do
  weigh_debt(schema)
  if is_held(schema) then
    redis.call('ZREM', key('ready'), schema)
    changed[schema] = nil
  end
end
for schema in pairs(changed) do
  enter_ring_again(schema)
end
return queues

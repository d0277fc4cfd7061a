-- Forget every package that is not leased: queued, delayed and dead ones.
--
-- The cost depends on the number of leased packages, of tenants and of their lanes, not of all packages: the script
-- unlinks whole keys, which the server frees in the background, and writes the leased packages again. So one call is
-- enough.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  how many were forgotten

write_though_full()
local chunk = 1000
local leased = redis.call('HKEYS', key('leased'))
local forgotten = redis.call('HLEN', key('messages'))

-- Unlink a hash, except for its fields of leased packages.
local function keep_leased(name)
  local kept = {}
  for first = 1, #leased, chunk do
    local ids = { unpack(leased, first, math.min(first + chunk - 1, #leased)) }
    for i, value in ipairs(redis.call('HMGET', key(name), unpack(ids))) do
      if value then
        kept[#kept + 1] = ids[i]
        kept[#kept + 1] = value
      end
    end
  end
  redis.call('UNLINK', key(name))
  for first = 1, #kept, 2 * chunk do
    redis.call('HSET', key(name), unpack(kept, first, math.min(first + 2 * chunk - 1, #kept)))
  end
end

local alone = {}
for _, id in ipairs(leased) do
  if redis.call('SISMEMBER', key('alone'), id) == 1 then
    alone[#alone + 1] = id
  end
end
redis.call('UNLINK', key('alone'))
for first = 1, #alone, chunk do
  redis.call('SADD', key('alone'), unpack(alone, first, math.min(first + chunk - 1, #alone)))
end
local taken = {}
for _, id in ipairs(leased) do
  local entry = redis.call('HGET', key('unique_of'), id)
  local field = entry and string.sub(entry, 2)
  if field and redis.call('HGET', key('unique'), field) == id then
    taken[field] = id
  end
end
redis.call('UNLINK', key('unique'))
for field, id in pairs(taken) do
  redis.call('HSET', key('unique'), field, id)
end
for _, name in ipairs({ 'messages', 'lanes', 'starts', 'verdicts', 'followed', 'unique_of' }) do
  keep_leased(name)
end

-- Every tenant with packages is in the ring, has a policy that keeps it out, or has delayed ones.
local schemas, queues = {}, {}
for _, found in ipairs({
  redis.call('HKEYS', key('vtime')), redis.call('HKEYS', key('policy')), redis.call('HKEYS', key('waiting')),
}) do
  for _, schema in ipairs(found) do
    schemas[schema] = true
  end
end
for schema in pairs(schemas) do
  queues[#queues + 1] = key('queue:' .. schema)
  queues[#queues + 1] = key('delayed:' .. schema)
end
for _, schema in ipairs(redis.call('HKEYS', key('laned'))) do
  for _, lane in ipairs(lanes_in_order(schema)) do
    queues[#queues + 1] = lane_key(schema, lane.level, lane.rate)
    if lane.rate then
      queues[#queues + 1] = key('levels:' .. schema .. ';' .. lane.rate)
      queues[#queues + 1] = key('turns:' .. lane.rate)
    end
  end
  queues[#queues + 1] = key('open:' .. schema)
  queues[#queues + 1] = key('parked:' .. schema)
end
for first = 1, #queues, chunk do
  redis.call('UNLINK', unpack(queues, first, math.min(first + chunk - 1, #queues)))
end
redis.call('UNLINK', key('ready'), key('delayed'), key('due'), key('waiting'), key('unready'), key('dead'),
  key('dead_of'), key('causes'), key('wake'), key('laned'), key('rate_due'), key('sweep'))
return forgotten - redis.call('HLEN', key('messages'))

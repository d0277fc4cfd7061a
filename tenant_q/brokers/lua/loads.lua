-- Return the packages of each tenant by place, and the figures of its last hour.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 how many periods of five minutes an hour is
-- Returns  { { schema, queued, leased, delayed, dead }, ... }, <tag>:figure_places, <tag>:figures, its value an hour
--          ago or nil if nothing was done since, and <tag>:queue_owners

local places = {}

local function add(schema, place, count)
  local own = places[schema] or { 0, 0, 0, 0 }
  places[schema] = own
  own[place] = own[place] + count
end

-- Return a hash as a table.
local function read(name)
  local pairs_of, found = redis.call('HGETALL', name), {}
  for i = 1, #pairs_of, 2 do
    found[pairs_of[i]] = pairs_of[i + 1]
  end
  return found
end

for schema, queued in pairs(queued_by_tenant()) do
  if queued > 0 then
    add(schema, 1, queued)
  end
end
for _, packed in ipairs(redis.call('HVALS', key('leased'))) do
  local lease = unpack_lease(packed)
  if lease then
    add(lease.schema, 2, 1)
  end
end
for schema, count in pairs(read(key('waiting'))) do
  add(schema, 3, tonumber(count))
end
for schema, count in pairs(read(key('dead_of'))) do
  add(schema, 4, tonumber(count))
end

-- The oldest value of the last hour. If there is none, nothing was done.
local before = false
for period = this_period() - tonumber(ARGV[1]), this_period() do
  before = redis.call('GET', key('figures:' .. period))
  if before then
    break
  end
end

local found = {}
for schema, own in pairs(places) do
  found[#found + 1] = { schema, unpack(own) }
end
return { found, redis.call('HGETALL', key('figure_places')), redis.call('GET', key('figures')), before,
  redis.call('HGETALL', key('queue_owners')) }

-- What each tenant has where, and what was done for it in the last hour.
--
-- Every tenant with a queue has a virtual time, or a policy that keeps it out of the ring.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 how many periods of five minutes an hour is
-- Returns  { schema, what was done: the counts of <tag>:figures as text or '', queued, leased, delayed, dead }, ...

local places = {}

local function add(schema, place, count)
  local own = places[schema] or { 0, 0, 0, 0 }
  places[schema] = own
  own[place] = own[place] + count
end

-- A hash as a table.
local function read(name)
  local pairs_of, found = redis.call('HGETALL', name), {}
  for i = 1, #pairs_of, 2 do
    found[pairs_of[i]] = pairs_of[i + 1]
  end
  return found
end

local seen = {}
for _, name in ipairs({ 'vtime', 'policy' }) do
  for _, schema in ipairs(redis.call('HKEYS', key(name))) do
    local queued = not seen[schema] and redis.call('LLEN', key('queue:' .. schema)) or 0
    seen[schema] = true
    if queued > 0 then
      add(schema, 1, queued)
    end
  end
end
for _, packed in ipairs(redis.call('HVALS', key('leased'))) do
  add(unpack_lease(packed).schema, 2, 1)
end
for schema, count in pairs(read(key('waiting'))) do
  add(schema, 3, tonumber(count))
end
for schema, count in pairs(read(key('dead_of'))) do
  add(schema, 4, tonumber(count))
end

-- The oldest of the last hour; where nothing is kept since, nothing was done.
local this_period = math.floor(now_ms() / 300000)
local before
for period = this_period - tonumber(ARGV[1]), this_period do
  local name = key('figures:' .. period)
  if redis.call('EXISTS', name) == 1 then
    before = read(name)
    break
  end
end

local function done_since(schema, packed)
  if not before or before[schema] == packed then
    return ''
  end
  local counts, old = cmsgpack.unpack(packed), before[schema] and cmsgpack.unpack(before[schema]) or {}
  for place, count in ipairs(counts) do
    counts[place] = count - (old[place] or 0)
  end
  return table.concat(counts, ' ')
end

local found, told = {}, {}
for schema, packed in pairs(read(key('figures'))) do
  local done = done_since(schema, packed)
  local own = places[schema] or { 0, 0, 0, 0 }
  found[#found + 1] = { schema, done, unpack(own) }
  told[schema] = true
end
for schema, own in pairs(places) do
  if not told[schema] then
    found[#found + 1] = { schema, '', unpack(own) }
  end
end
return found

-- Put packages on their tenants' queues. Known ids are skipped.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 the number of packages that the tenant of the first one must have room for (known ones are subtracted), or
--          0 if its limit does not count, then for each package eight: id, schema, tenant or '', func, once ('1' or
--          '0'), the id of the package that it follows or '', delay in ms, payload
-- Returns  { how many were not known before }; without room { 0, the limit, how many wait }; if a tenant was deleted
--          { 0, the tenant }. In the last two cases nothing is enqueued

local wanted = tonumber(ARGV[1])

-- The queue of each package, and for each tenant without a claimed queue the place of its first package in ARGV.
local queues, names, unclaimed = {}, {}, {}
for i = 2, #ARGV, 8 do
  local schema, tenant = ARGV[i + 1], ARGV[i + 2]
  local owner = tenant .. '\n' .. schema
  if not names[owner] then
    if is_deleted(tenant) then
      return { 0, tenant }
    end
    local name = claimed_queue(schema, tenant)
    names[owner] = name or free_queue(schema, tenant)
    if not name then
      unclaimed[#unclaimed + 1] = i
    end
  end
  queues[i] = names[owner]
end

-- Return whether an id belongs to a finished task and must not be enqueued again.
local function is_done(id, once, source)
  return once == '1' and (redis.call('ZSCORE', key('known'), id)
    or (source ~= '' and redis.call('HGET', key('followed'), source) == id))
end

-- As long as a package exists, it may be delivered again, and the package that follows it enqueued again.
local function note_followed(id, source)
  if source ~= '' and redis.call('HEXISTS', key('messages'), source) == 1 then
    redis.call('HSET', key('followed'), source, id)
  end
end

if wanted > 0 then
  local schema = queues[2]
  local limit = policy_of(schema).limit
  if limit > 0 then
    for i = 2, #ARGV, 8 do
      local id = ARGV[i]
      if redis.call('HEXISTS', key('messages'), id) == 1 or is_done(id, ARGV[i + 4], ARGV[i + 5]) then
        wanted = wanted - 1
      end
    end
    local waits = redis.call('LLEN', key('queue:' .. schema)) + delayed_of(schema)
    if wanted > 0 and waits + wanted > limit then
      return { 0, limit, waits }
    end
  end
else
  write_though_full()  -- a package from the cluster itself takes the place of one that it acknowledges
end

for _, i in ipairs(unclaimed) do
  claim_queue(ARGV[i + 1], ARGV[i + 2])
end

local accepted, by_schema = 0, {}
for i = 2, #ARGV, 8 do
  local id, schema, func, once, source, delay, payload =
    ARGV[i], queues[i], ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], tonumber(ARGV[i + 6]), ARGV[i + 7]
  local message = schema .. '\n' .. func .. '\n' .. once .. '\n' .. payload
  if not is_done(id, once, source) and redis.call('HSETNX', key('messages'), id, message) == 1 then
    if delay > 0 then
      delay_until(schema, id, clock_ms() + delay)
    else
      by_schema[schema] = by_schema[schema] or {}
      table.insert(by_schema[schema], id)
    end
    accepted = accepted + 1
  end
  note_followed(id, source)
end

for schema, ids in pairs(by_schema) do
  redis.call('RPUSH', key('queue:' .. schema), unpack(ids))
  enter_ring(schema)
end
wake(accepted)
return { accepted }

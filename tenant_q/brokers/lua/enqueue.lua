-- Put packages on their tenants' queues. An id that is known is passed over.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 how many packages the tenant of the first one is to have room for (less those of them that are known
--          already), or 0 where its limit does not count; then for each package six: id, schema, func, once
--          ('1' or '0'), delay in ms, payload
-- Returns  { how many were not known before }, or where there is no room { 0, the limit, how many wait }

local wanted = tonumber(ARGV[1])

-- Whether an id of a finished task must not be enqueued again.
local function is_done(id, once)
  return once == '1' and redis.call('ZSCORE', key('known'), id)
end

if wanted > 0 then
  local schema = ARGV[3]
  local limit = policy_of(schema).limit
  if limit > 0 then
    for i = 2, #ARGV, 6 do
      local id = ARGV[i]
      if redis.call('HEXISTS', key('messages'), id) == 1 or is_done(id, ARGV[i + 3]) then
        wanted = wanted - 1
      end
    end
    local waits = redis.call('LLEN', key('queue:' .. schema)) + delayed_of(schema)
    if wanted > 0 and waits + wanted > limit then
      return { 0, limit, waits }
    end
  end
else
  write_though_full()  -- what the cluster itself enqueues is in place of what it acknowledges
end

local accepted, by_schema = 0, {}
for i = 2, #ARGV, 6 do
  local id, schema, func, once, delay, payload =
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]), ARGV[i + 5]
  local message = schema .. '\n' .. func .. '\n' .. once .. '\n' .. payload
  if not is_done(id, once) and redis.call('HSETNX', key('messages'), id, message) == 1 then
    if delay > 0 then
      delay_until(schema, id, now_ms() + delay)
    else
      by_schema[schema] = by_schema[schema] or {}
      table.insert(by_schema[schema], id)
    end
    accepted = accepted + 1
  end
end

for schema, ids in pairs(by_schema) do
  redis.call('RPUSH', key('queue:' .. schema), unpack(ids))
  enter_ring(schema)
end
wake(accepted)
return { accepted }

-- Put packages on their tenants' queues. An id that is known is passed over.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 how many packages the tenant of the first one is to have room for, or 0 where its limit does not count;
--          then for each package six: id, schema, func, once ('1' or '0'), delay in ms, payload
-- Returns  { how many were not known before }, or where there is no room { 0, the limit, how many wait }

local wanted = tonumber(ARGV[1])

if wanted > 0 then
  local schema = ARGV[3]
  local limit = policy_of(schema).limit
  if limit > 0 then
    local waits = redis.call('LLEN', key('queue:' .. schema))
      + tonumber(redis.call('HGET', key('waiting'), schema) or '0')
    if waits + wanted > limit then
      return { 0, limit, waits }
    end
  end
end

local accepted, by_schema = 0, {}
for i = 2, #ARGV, 6 do
  local id, schema, func, once, delay, payload =
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]), ARGV[i + 5]
  local is_done = once == '1' and redis.call('ZSCORE', key('known'), id)
  local message = schema .. '\n' .. func .. '\n' .. once .. '\n' .. payload
  if not is_done and redis.call('HSETNX', key('messages'), id, message) == 1 then
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

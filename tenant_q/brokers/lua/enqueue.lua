-- Put packages on their tenants' queues. An id that is known is passed over.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 how many packages the tenant of the first one is to have room for (less those of them that are known
--          already), or 0 where its limit does not count; then for each package six: id, schema, func, once
--          ('1' or '0'), delay in ms, payload
-- Returns  { how many were not known before }, or where there is no room { 0, the limit, how many wait }

local now = now_ms()
local wanted = tonumber(ARGV[1])

local function is_known(id, once)
  return redis.call('HEXISTS', key('messages'), id) == 1
    or (once == '1' and redis.call('ZSCORE', key('known'), id))
end

if wanted > 0 then
  for i = 2, #ARGV, 6 do
    wanted = wanted - (is_known(ARGV[i], ARGV[i + 3]) and 1 or 0)
  end
  local schema = ARGV[3]
  local limit = policy_of(schema).limit
  local waits = redis.call('LLEN', key('queue:' .. schema))
    + tonumber(redis.call('HGET', key('waiting'), schema) or '0')
  if limit > 0 and wanted > 0 and waits + wanted > limit then
    return { 0, limit, waits }
  end
else
  write_though_full()  -- what the cluster itself enqueues is in place of what it acknowledges
end

local accepted = 0
for i = 2, #ARGV, 6 do
  local id, schema, func, once, delay, payload =
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]), ARGV[i + 5]
  if not is_known(id, once) then
    redis.call('HSET', key('messages'), id, schema .. '\n' .. func .. '\n' .. once .. '\n' .. payload)
    if delay > 0 then
      delay_until(schema, id, now + delay)
    else
      push(schema, id, false)
    end
    accepted = accepted + 1
  end
end
wake(accepted)
return { accepted }

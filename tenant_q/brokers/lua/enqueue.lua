-- Put packages on their tenants' queues. An id that is known is passed over.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     for each package six: id, schema, func, once ('1' or '0'), delay in ms, payload
-- Returns  how many were not known before

local now = now_ms()
local accepted = 0

for i = 1, #ARGV, 6 do
  local id, schema, func, once, delay, payload =
    ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3], tonumber(ARGV[i + 4]), ARGV[i + 5]
  local known = redis.call('HEXISTS', key('messages'), id) == 1
    or (once == '1' and redis.call('ZSCORE', key('known'), id))
  if not known then
    redis.call('HSET', key('messages'), id, schema .. '\n' .. func .. '\n' .. once .. '\n' .. payload)
    if delay > 0 then
      redis.call('ZADD', key('delayed'), now + delay, id)
    else
      push(schema, id, false)
    end
    accepted = accepted + 1
  end
end
wake(accepted)
return accepted

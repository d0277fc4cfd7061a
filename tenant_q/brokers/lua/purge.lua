-- Forget every package that is not leased: queued, delayed and dead.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  how many were forgotten

local forgotten = 0
local function forget(ids)
  for _, id in ipairs(ids) do
    redis.call('HDEL', key('messages'), id)
    redis.call('HDEL', key('causes'), id)
    drop_history(id)
    forgotten = forgotten + 1
  end
end

for _, schema in ipairs(redis.call('ZRANGE', key('ready'), 0, -1)) do
  forget(redis.call('LRANGE', key('queue:' .. schema), 0, -1))
  redis.call('DEL', key('queue:' .. schema))
end
forget(redis.call('ZRANGE', key('delayed'), 0, -1))
forget(redis.call('ZRANGE', key('dead'), 0, -1))
redis.call('DEL', key('ready'), key('delayed'), key('dead'), key('wake'))
return forgotten

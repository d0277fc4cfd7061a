-- Forget every package that is not leased: queued, delayed and dead.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  how many were forgotten

local forgotten = 0
for _, id in ipairs(redis.call('HKEYS', key('messages'))) do
  if redis.call('HEXISTS', key('leased'), id) == 0 then
    local schema = open_message(redis.call('HGET', key('messages'), id))
    if schema then
      redis.call('DEL', key('queue:' .. schema), key('delayed:' .. schema))
    end
    redis.call('HDEL', key('messages'), id)
    redis.call('HDEL', key('causes'), id)
    drop_history(id)
    forgotten = forgotten + 1
  end
end
redis.call('DEL', key('ready'), key('delayed'), key('due'), key('waiting'), key('unready'), key('dead'), key('dead_of'),
  key('wake'))
return forgotten

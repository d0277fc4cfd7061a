-- Put dead packages back on their tenants' queues. Each counts as given back: its task may have succeeded before. It
-- has its unique key again, unless another package has that by now.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     for each package two: id, its new payload or '' to keep its own
-- Returns  how many were dead and are queued now

local retried = 0
for i = 1, #ARGV, 2 do
  local id, payload = ARGV[i], ARGV[i + 1]
  if redis.call('ZREM', key('dead'), id) == 1 then
    redis.call('HDEL', key('causes'), id)
    local schema, func, once, own = open_message(redis.call('HGET', key('messages'), id))
    if schema then
      local carried = payload ~= '' and payload or own
      redis.call('HSET', key('messages'), id, schema .. '\n' .. func .. '\n' .. once .. '\n' .. carried)
      count_in('dead_of', schema, -1)
      redis.call('HSET', key('starts'), id, 0)
      local entry = redis.call('HGET', key('unique_of'), id)
      local field = entry and string.sub(entry, 2)
      if field and not holder_of(field) then
        redis.call('HSET', key('unique'), field, id)
      end
      push(schema, id, false)
      retried = retried + 1
    else
      forget_broken(id)
    end
  end
end
wake(retried)
return retried

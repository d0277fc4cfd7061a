-- Forget dead packages for good.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     their ids
-- Returns  how many of them were dead

local purged = 0
for _, id in ipairs(ARGV) do
  if redis.call('ZREM', key('dead'), id) == 1 then
    redis.call('HDEL', key('causes'), id)
    local schema = open_message(redis.call('HGET', key('messages'), id))
    if schema then
      count_in('dead_of', schema, -1)
    end
    drop_messages({ id })
    drop_history(id)
    purged = purged + 1
  end
end
return purged

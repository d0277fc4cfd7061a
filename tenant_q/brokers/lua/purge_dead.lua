-- Forget dead packages for good.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     their ids
-- Returns  how many of them were dead

local ids = {}
for _, id in ipairs(ARGV) do
  if redis.call('ZREM', key('dead'), id) == 1 then
    ids[#ids + 1] = id
  end
end
if #ids == 0 then
  return 0
end
local counts = {}
for _, message in ipairs(redis.call('HMGET', key('messages'), unpack(ids))) do
  local schema = open_message(message)
  if schema then
    counts[schema] = (counts[schema] or 0) + 1
  end
end
for schema, count in pairs(counts) do
  count_in('dead_of', schema, -count)
end
redis.call('HDEL', key('causes'), unpack(ids))
drop_messages(ids)
drop_histories(ids)
return #ids

-- Read, count or forget the parts of a group.
--
-- KEYS[1]  the site's tag (see add_parts.lua)
-- ARGV     1 schema, 2 tenant or '', 3 group, 4 'parts', 'count' or 'drop', 5 most bytes of all parts, or 0
-- Returns  for 'parts' { index, payload, ... }, or their size in bytes if that exceeds the limit;
--          for 'count' and 'drop' the number of parts

local queue, act = queue_of(ARGV[1], ARGV[2]), ARGV[4]
local group = key('group:' .. queue .. ';' .. ARGV[3])
if act == 'parts' then
  local most, bytes = tonumber(ARGV[5]), 0
  if most > 0 then
    for _, index in ipairs(redis.call('HKEYS', group)) do
      bytes = bytes + redis.call('HSTRLEN', group, index)
    end
  end
  if bytes > most then
    return bytes
  end
  return redis.call('HGETALL', group)
end
local count = redis.call('HLEN', group)
if act == 'drop' then
  redis.call('DEL', group)
  redis.call('ZREM', key('kept:' .. queue), 'group;' .. ARGV[3])
end
return count

-- Move packages of a tenant that wait to the dead letters, some of them in each call. What workers hold stays.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or '', 3 where to begin, '' for the first call, 4 'queued', 'delayed' or 'both', 5 the
--          function, or '' for all, 6 the cause, 7 the most packages to visit, 8 the most bytes of their messages
-- Returns  { where the next call begins or '', { id, func, ms when it died, payload }, ... }

write_though_full()
local queue, wanted, func = queue_of(ARGV[1], ARGV[2]), ARGV[4], ARGV[5]
local places = waiting_places(queue, wanted ~= 'delayed', wanted ~= 'queued')
local taken, ids, broken = {}, {}, {}
local died = string.format('%.0f', now_ms())

local cursor = walk(queue, places, ARGV[3], tonumber(ARGV[7]), tonumber(ARGV[8]), function(id, message)
  local owner, name, _, payload = open_message(message)
  if not owner then
    broken[#broken + 1] = id
  elseif func == '' or func == name then
    ids[#ids + 1] = id
    taken[#taken + 1] = { id, name, died, payload }
  else
    return false
  end
  return true
end)
for _, id in ipairs(broken) do
  forget_broken(id)
end
if #ids > 0 then
  bury(queue, ids, ARGV[6])
end
if not has_work(queue) then
  redis.call('ZREM', key('ready'), queue)
end
return { cursor, unpack(taken) }

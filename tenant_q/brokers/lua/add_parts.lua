-- Record parts of a group. A part that is recorded already stays as it is.
--
-- KEYS[1]  the site's tag, {tq:<site>}. The group's hash is <tag>:group:<queue>;<group>, and <tag>:kept:<queue> names
--          it until it expires (see keep.lua)
-- ARGV     1 schema, 2 tenant or '', 3 group, 4 seconds for which the group is kept, or 0 for good, then for each part
--          two: index, payload
-- Returns  how many parts are recorded; 0 if the tenant was deleted, because then nothing is recorded

write_though_full()
if is_deleted(ARGV[2]) then
  return 0
end
local queue, seconds = claim_queue(ARGV[1], ARGV[2]), tonumber(ARGV[4])
local group = key('group:' .. queue .. ';' .. ARGV[3])
for i = 5, #ARGV, 2 do
  redis.call('HSETNX', group, ARGV[i], ARGV[i + 1])
end
if seconds > 0 then
  redis.call('EXPIRE', group, seconds)
end
keep(queue, 'group;' .. ARGV[3], seconds)
return redis.call('HLEN', group)

-- Record one part of a group. A part that is there already stays as it is.
--
-- KEYS[1]  the site's tag, {tq:<site>}; the group's hash is <tag>:group:<schema>;<group>
-- ARGV     1 schema, 2 group, 3 index, 4 payload, 5 seconds the group is kept, or 0 for good
-- Returns  how many parts are recorded

write_though_full()
local group = KEYS[1] .. ':group:' .. ARGV[1] .. ';' .. ARGV[2]
redis.call('HSETNX', group, ARGV[3], ARGV[4])
if tonumber(ARGV[5]) > 0 then
  redis.call('EXPIRE', group, ARGV[5])
end
return redis.call('HLEN', group)

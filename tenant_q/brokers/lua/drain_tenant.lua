-- Enqueue nothing more for a tenant that is being decommissioned, and forget its packages that wait, some of them in each
-- call. What workers hold stays, and so do its dead packages.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant, 3 the most packages to forget
-- Returns  { how many packages were forgotten, how many its workers hold }

write_though_full()
redis.call('SADD', key('leaving'), ARGV[2])
local queue = queue_of(ARGV[1], ARGV[2])
local forgotten = forget_waiting(queue, tonumber(ARGV[3]))
if not has_work(queue) then
  redis.call('ZREM', key('ready'), queue)
end
local _, held = held_of(queue)
return { forgotten, held }

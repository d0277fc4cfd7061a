-- Extend the leases of living workers.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 lease in ms, then the workers
-- Returns  how many leases were extended

write_though_full()
local deadline = now_ms() + tonumber(ARGV[1])
local renewed = 0
for i = 2, #ARGV do
  for _, id in ipairs(redis.call('ZRANGE', key('held:' .. ARGV[i]), 0, -1)) do
    redis.call('ZADD', key('leases'), 'XX', deadline, id)
    renewed = renewed + 1
  end
end
return renewed

-- Remember packages that are acknowledged long after their rows were saved (see may_come.lua).
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 how long to remember them, in ms, then the ids
-- Returns  nothing

write_though_full()
local late, now, keep_ms = key('late'), clock_ms(), tonumber(ARGV[1])
redis.call('ZREMRANGEBYSCORE', late, '-inf', now)
for i = 2, #ARGV do
  redis.call('ZADD', late, now + keep_ms, ARGV[i])
end
redis.call('PEXPIRE', late, keep_ms)

-- Note for the day of figures which packages run, for a sample of the time in which workers are busy.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 for how many ms the sample stands, then the ids of the packages

write_though_full()
local busy = key('day_busy:' .. this_period())
redis.call('HINCRBY', busy, '', ARGV[1])
for i = 2, #ARGV do
  local lease = lease_of(ARGV[i])
  if lease then
    redis.call('HINCRBY', busy, lease.schema, ARGV[1])
  end
end
redis.call('PEXPIRE', busy, kept_periods * period_ms)

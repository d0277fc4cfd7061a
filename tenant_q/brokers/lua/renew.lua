-- Extend the leases of living workers.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 lease in ms, then the workers
-- Returns  for each worker the packages that it holds: { id, token, id, token, ... }

write_though_full()
local deadline = clock_ms() + tonumber(ARGV[1])
local all_held = {}
for i = 2, #ARGV do
  local held = {}
  for _, id in ipairs(redis.call('ZRANGE', key('held:' .. ARGV[i]), 0, -1)) do
    local lease = lease_of(id)
    if lease then
      redis.call('ZADD', key('leases'), 'XX', deadline, id)
      held[#held + 1] = id
      held[#held + 1] = fencing_token(lease)
    end
  end
  all_held[i - 1] = held
end
return all_held

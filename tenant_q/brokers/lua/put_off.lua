-- Return a leased package to be delivered later, with another payload if one is given.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, 2 id, 3 token, 4 delay in ms, 5 payload or '', 6 ms used, 7 '1' if it waits until its tenant is
--          ready
-- Returns  1; 0 if the worker does not hold the lease with this token

write_though_full()
local worker, id, token, delay, payload, ms, unready =
  ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), ARGV[7] == '1'
local lease = lease_held(id, worker, token)
if not lease then
  return 0
end
settle_one(lease, ms)
drop_lease(id, lease)
if not is_cancelled(id) then
  redis.call('HDEL', key('verdicts'), id)
end
if payload ~= '' then
  local message = lease.schema .. '\n' .. lease.func .. '\n' .. lease.once .. '\n' .. payload
  redis.call('HSET', key('messages'), id, message)
elseif not open_message(redis.call('HGET', key('messages'), id)) then
  forget_broken(id)
  return 1
end
delay_until(lease.schema, id, clock_ms() + delay)
if unready then
  redis.call('SADD', key('unready'), id)
end
return 1

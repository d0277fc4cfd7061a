-- Return a leased package to be delivered later, with another payload if one is given.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 id, 2 token, 3 delay in ms, 4 payload or '', 5 ms used, 6 '1' when it waits for its tenant to be there
-- Returns  1, or 0 when the token no longer fits

write_though_full()
local id, token, delay, payload, ms, unready =
  ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1'
local lease = lease_of(id, token)
if not lease then
  return 0
end
charge(lease.schema, virtual(lease.schema, ms) - lease.charged)
drop_lease(id, lease)
if not is_cancelled(id) then
  redis.call('HDEL', key('verdicts'), id)
end
if payload ~= '' then
  local schema, func, once = open_message(redis.call('HGET', key('messages'), id))
  redis.call('HSET', key('messages'), id, schema .. '\n' .. func .. '\n' .. once .. '\n' .. payload)
end
delay_until(lease.schema, id, now_ms() + delay)
if unready then
  redis.call('SADD', key('unready'), id)
end
return 1

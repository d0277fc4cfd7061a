-- Move a leased package to the dead letters.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, 2 id, or '' to find it by the token, 3 token, 4 cause, or '' to forget the package
-- Returns  1; 0 if the worker does not hold the lease with this token

write_though_full()
local worker, id, token, cause = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if id == '' then
  local number = string.match(token, '^%d+')
  id = number and redis.call('ZRANGEBYSCORE', key('held:' .. worker), number, number)[1] or ''
end
local lease = lease_held(id, worker, token)
if not lease then
  return 0
end
settle_one(lease, 0)
drop_lease(id, lease)
if cause == '' or not open_message(redis.call('HGET', key('messages'), id)) then
  forget_broken(id)
  return 1
end
bury(lease.schema, { id }, cause)
return 1

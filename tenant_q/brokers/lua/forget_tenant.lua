-- Forget what a deleted tenant has in a cluster: its policy and its packages, some of them in each call. What workers
-- hold is cancelled, and forgotten by a later call when they have ended it. Nothing of other tenants is read.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant, 3 the reason of the cancel, 4 the most packages, 5 ms for which nothing more is enqueued
--          for the tenant
-- Returns  { how many packages were forgotten, how many its workers hold, the name of its queue }

write_though_full()
local tenant, reason, most = ARGV[2], ARGV[3], tonumber(ARGV[4])
local is_let_go = is_deleted(tenant) and redis.call('HEXISTS', key('queues'), tenant) == 0
note_deleted(tenant, tonumber(ARGV[5]))
redis.call('SREM', key('leaving'), tenant)
if is_let_go then  -- the next tenant may have the name by now
  return { 0, 0, queue_of(ARGV[1], tenant) }
end
local queue = claim_queue(ARGV[1], tenant)
redis.call('HDEL', key('policy'), queue)
redis.call('ZREM', key('ready'), queue)

local forgotten = forget_waiting(queue, most)
local held, count = held_of(queue)
for id, lease in pairs(held) do
  if not is_cancelled(id) then
    redis.call('HSET', key('verdicts'), id, reason)
    redis.call('HSET', key('cancelled'), id, lease.token)
  end
end
return { forgotten, count, queue }

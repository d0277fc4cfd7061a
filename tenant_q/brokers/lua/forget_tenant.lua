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
if is_let_go then  -- the next tenant may have the name by now
  return { 0, 0, queue_of(ARGV[1], tenant) }
end
local queue = claim_queue(ARGV[1], tenant)
redis.call('HDEL', key('policy'), queue)
redis.call('ZREM', key('ready'), queue)

local forgotten = {}
local function take(ids, leave)
  for _, id in ipairs(ids) do
    if #forgotten < most then
      leave(id)
      drop_messages({ id })
      forgotten[#forgotten + 1] = id
    end
  end
end

local function leave_queue()
  redis.call('LPOP', key('queue:' .. queue))
end

take(redis.call('LRANGE', key('queue:' .. queue), 0, most - 1), leave_queue)
for _, lane in ipairs(lanes_in_order(queue)) do
  local list = lane_key(queue, lane.level, lane.rate)
  take(redis.call('LRANGE', list, 0, most - 1), function()
    redis.call('LPOP', list)
    leave_lane(queue, lane.level, lane.rate, 1)
  end)
end
take(redis.call('ZRANGE', key('delayed:' .. queue), 0, most - 1), function(id) end_delay(queue, id) end)
for _, id in ipairs(forgotten) do
  drop_history(id)
end

local held = 0
for _, worker in ipairs(redis.call('HKEYS', key('running:' .. queue))) do
  for _, id in ipairs(redis.call('ZRANGE', key('held:' .. worker), 0, -1)) do
    local lease = lease_of(id)
    if lease and lease.schema == queue then
      held = held + 1
      if not is_cancelled(id) then
        redis.call('HSET', key('verdicts'), id, reason)
        redis.call('HSET', key('cancelled'), id, lease.token)
      end
    end
  end
end
return { #forgotten, held, queue }

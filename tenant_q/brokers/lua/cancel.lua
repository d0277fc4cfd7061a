-- Have a tenant's package given up instead of run, or stopped where it runs.
--
-- The reason stays with the package as long as it exists, so the next worker that gets it gives it up. To be given up
-- soon, a package that waits moves to the head of its queue. Far back in a long queue it stays where it is, so that
-- nobody else waits for the search. One in a lane moves to the head of its tenant's queue, because it needs neither a
-- start of its rate nor its turn. For a leased package, the worker's sentinel is notified (see cancelled.lua).
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or '', 3 id, 4 reason, 5 how far from the head of its queue it is looked for
-- Returns  its place before; '' if the tenant has no such package that is still to be run. The first cancel stays

write_though_full()
local schema, id, reason, reach = queue_of(ARGV[1], ARGV[2]), ARGV[3], ARGV[4], tonumber(ARGV[5])
local place = place_of(schema, id)
if not place or place == 'dead' then
  return ''
elseif is_cancelled(id) then
  return place
end

-- Remove the package from a list if it is near the head, and return whether it was.
local function remove_from(list)
  for _, waiting in ipairs(redis.call('LRANGE', list, 0, reach - 1)) do
    if waiting == id then
      redis.call('LREM', list, 1, id)
      return true
    end
  end
end

local lane = lane_of(id)
redis.call('HSET', key('verdicts'), id, reason)
if place ~= 'leased' then  -- it will not run
  release_unique({ id })
end
if place == 'leased' then
  local lease = lease_of(id)
  if lease then
    redis.call('HSET', key('cancelled'), id, lease.token)
  end
elseif place == 'delayed' then
  end_delay(schema, id)
  push(schema, id, true)
  wake(1)
else
  local list = lane and lane_key(schema, lane.level, lane.rate) or key('queue:' .. schema)
  if remove_from(list) then
    redis.call('LPUSH', key('queue:' .. schema), id)
    if lane then
      leave_lane(schema, lane.level, lane.rate, 1)
      redis.call('HDEL', key('lanes'), id)
      enter_ring(schema)
      wake(1)
    end
  end
end
return place

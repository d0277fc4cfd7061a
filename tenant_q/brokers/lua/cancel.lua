-- Have packages of a tenant given up instead of run, or stopped where they run.
--
-- The reason stays with a package as long as it exists, so the next worker that gets it gives it up. To be given up
-- soon, a package that waits moves to the head of its queue. Far back in a long queue it stays where it is, so that
-- nobody else waits for the search. One in a lane moves to the head of its tenant's queue, because it needs neither a
-- start of its rate nor its turn. For a leased package, the worker's sentinel is notified (see cancelled.lua).
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or '', 3 reason, 4 how far from the head of its queue a package is looked for, then ids
-- Returns  for each id its place before; '' if the tenant has no such package that is still to be run. The first cancel
--          of a package stays

write_though_full()
local schema, reason, reach = queue_of(ARGV[1], ARGV[2]), ARGV[3], tonumber(ARGV[4])
local queue = key('queue:' .. schema)
local before, moved, is_awaited = {}, {}, false
-- The lists that packages are to leave, in the order in which the last package of each was cancelled.
local lists, left = {}, {}

local function cancel_queued(id, lane, at)
  local name = lane and lane_key(schema, lane.level, lane.rate) or queue
  if not left[name] then
    left[name] = { name = name, lane = lane, ids = {} }
    lists[#lists + 1] = left[name]
  end
  left[name].ids[id], left[name].last = true, at
end

local function cancel_one(id, place, at)
  local lane = lane_of(id)
  redis.call('HSET', key('verdicts'), id, reason)
  if place == 'leased' then
    local lease = lease_of(id)
    if lease then
      redis.call('HSET', key('cancelled'), id, lease.token)
    end
    return
  end
  release_unique({ id })  -- it will not run
  if place == 'delayed' then
    end_delay(schema, id)
    redis.call('HDEL', key('lanes'), id)
    moved[id], is_awaited = true, true
  else
    cancel_queued(id, lane, at)
  end
end

-- Take those that are to move out of the head of a list.
local function leave_head(list)
  local head, lane = redis.call('LRANGE', list.name, 0, reach - 1), list.lane
  local kept = {}
  for i = #head, 1, -1 do  -- the order in which LPUSH puts them back
    if list.ids[head[i]] then
      moved[head[i]] = true
    else
      kept[#kept + 1] = head[i]
    end
  end
  local count = #head - #kept
  if count == 0 then
    return
  end
  redis.call('LTRIM', list.name, #head, -1)
  if #kept > 0 then
    redis.call('LPUSH', list.name, unpack(kept))
  end
  if lane then
    leave_lane(schema, lane.level, lane.rate, count)
    is_awaited = true
  end
end

for i = 5, #ARGV do
  local id = ARGV[i]
  local place = place_of(schema, id)
  if not place or place == 'dead' then
    before[i - 4] = ''
  else
    before[i - 4] = place
    if not is_cancelled(id) then
      cancel_one(id, place, i)
    end
  end
end
table.sort(lists, function(a, b) return a.last < b.last end)
for _, list in ipairs(lists) do
  leave_head(list)
end

local ids, is_listed = {}, {}
for i = 5, #ARGV do
  if moved[ARGV[i]] and not is_listed[ARGV[i]] then
    ids[#ids + 1], is_listed[ARGV[i]] = ARGV[i], true
  end
end
if #ids > 0 then
  redis.call('HDEL', key('lanes'), unpack(ids))
  redis.call('LPUSH', queue, unpack(ids))
end
if is_awaited then
  enter_ring(schema)
  wake(1)
end
return before

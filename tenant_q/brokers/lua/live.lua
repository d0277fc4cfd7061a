-- List a tenant's packages that are still to be run, or are being run: leased, then queued ones by priority, then
-- delayed ones.
--
-- It reads what it returns, and what those workers hold that are busy with the tenant; nothing of other tenants.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or '', 3 the most packages, 4 the only place to list or ''
-- Returns  { id, place, ms when it is due or '', give-up reason or '', message as it is stored, starts that ended with
--            their worker's death or '' }, ...

local schema, limit, only = queue_of(ARGV[1], ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local found = {}

local function lists(place)
  return only == '' or only == place
end

local function add(id, place, due)
  local message = redis.call('HGET', key('messages'), id)
  if #found < limit and open_message(message) then
    local reason, starts = redis.call('HGET', key('verdicts'), id), redis.call('HGET', key('starts'), id)
    found[#found + 1] = { id, place, due, reason or '', message, starts or '' }
  end
end

local leased = {}
for _, worker in ipairs(lists('leased') and redis.call('HKEYS', key('running:' .. schema)) or {}) do
  for _, id in ipairs(redis.call('ZRANGE', key('held:' .. worker), 0, -1)) do
    local lease = lease_of(id)
    if lease and lease.schema == schema then
      leased[#leased + 1] = { id = id, token = lease.token }
    end
  end
end
table.sort(leased, function(a, b) return a.token < b.token end)
for _, one in ipairs(leased) do
  add(one.id, 'leased', '')
end

local function add_list(list)
  for _, id in ipairs(lists('queued') and #found < limit and redis.call('LRANGE', list, 0, limit) or {}) do
    add(id, 'queued', '')
  end
end

local lanes, next_lane = lanes_in_order(schema), 1
local function add_lanes(fits)
  while lanes[next_lane] and fits(lanes[next_lane]) do
    add_list(lane_key(schema, lanes[next_lane].level, lanes[next_lane].rate))
    next_lane = next_lane + 1
  end
end

add_lanes(function(lane) return lane.order < 0 end)
add_list(key('queue:' .. schema))
add_lanes(function() return true end)
for _, id in ipairs(lists('delayed') and redis.call('ZRANGE', key('delayed:' .. schema), 0, limit) or {}) do
  add(id, 'delayed', due_of(id))
end
return found

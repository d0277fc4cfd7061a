-- Read a tenant's packages that are still to be run, or are being run, some of them in each call; the leased ones last.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or '', 3 where to begin, '' for the first call, 4 the most packages to visit, 5 the most
--          bytes of their messages
-- Returns  { where the next call begins or '', then packages as live.lua lists them }

local queue, found = queue_of(ARGV[1], ARGV[2]), {}

local function add(id, message, place, due)
  if open_message(message) then
    local reason, starts = redis.call('HGET', key('verdicts'), id), redis.call('HGET', key('starts'), id)
    found[#found + 1] = { id, place, due, reason or '', message, starts or '' }
  end
end

local places = waiting_places(queue, true, true)
local cursor = walk(queue, places, ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), function(id, message, place)
  local is_delayed = place.name == 'delayed'
  add(id, message, is_delayed and 'delayed' or 'queued', is_delayed and due_of(id) or '')
  return false
end)
for id in pairs(cursor == '' and held_of(queue) or {}) do
  add(id, redis.call('HGET', key('messages'), id), 'leased', '')
end
return { cursor, unpack(found) }

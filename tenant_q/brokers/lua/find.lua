-- Find a tenant's package: its place, its give-up reason, and on request its message.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or '', 3 id, 4 'whole' to get the message too
-- Returns  { place, ms when it is due or '', give-up reason or '', '1' if it was cancelled since its worker took it
--            (which may be running it) or '', and on request the message as it is stored, and its starts that ended
--            with their worker's death or '' };
--          nothing if the tenant has no such package

local schema, id, wanted = queue_of(ARGV[1], ARGV[2]), ARGV[3], ARGV[4]
local place = place_of(schema, id)
if not place then
  return {}
end
local due = place == 'delayed' and due_of(id) or ''
local token = place == 'leased' and redis.call('HGET', key('cancelled'), id)
local lease = token and lease_of(id)
local may_run = lease and tostring(lease.token) == token and '1' or ''
local found = { place, due, redis.call('HGET', key('verdicts'), id) or '', may_run }
if wanted == 'whole' then
  found[5] = redis.call('HGET', key('messages'), id)
  found[6] = redis.call('HGET', key('starts'), id) or ''
end
return found

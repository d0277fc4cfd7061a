-- Where a tenant's package is, whether it is to be given up, and the package itself where it is asked for.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or '', 3 id, 4 'whole' with the message
-- Returns  { its place, ms when it is due or '', its give-up reason or '', '1' where it was cancelled since its worker took it
--          (which may be running it) or '', and its message as it is stored where that is asked for },
--          or nothing where the tenant has no such package

local schema, id, wanted = queue_of(ARGV[1], ARGV[2]), ARGV[3], ARGV[4]
local place = place_of(schema, id)
if not place then
  return {}
end
local due = place == 'delayed' and due_of(id) or ''
local told = place == 'leased' and redis.call('HGET', key('cancelled'), id)
local lease = told and lease_of(id)
local may_run = lease and tostring(lease.token) == told and '1' or ''
local found = { place, due, redis.call('HGET', key('verdicts'), id) or '', may_run }
if wanted == 'whole' then
  found[5] = redis.call('HGET', key('messages'), id)
end
return found

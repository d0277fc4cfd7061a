-- List the leased packages that were cancelled since their worker took them: the worker does not know of it.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  { id, worker, reason }, ...

local found = {}
local noted = redis.call('HGETALL', key('cancelled'))
for i = 1, #noted, 2 do
  local id = noted[i]
  local lease, reason = lease_of(id), redis.call('HGET', key('verdicts'), id)
  if lease and reason and tostring(lease.token) == noted[i + 1] then
    found[#found + 1] = { id, lease.worker, reason }
  else
    redis.call('HDEL', key('cancelled'), id)
  end
end
return found

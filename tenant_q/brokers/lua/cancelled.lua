-- The leased packages that were cancelled since their worker took them, and so without its knowing.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  { id, worker, reason }, ...

local found = {}
local asked = redis.call('HGETALL', key('cancelled'))
for i = 1, #asked, 2 do
  local id = asked[i]
  local lease, reason = lease_of(id), redis.call('HGET', key('verdicts'), id)
  if lease and reason and tostring(lease.token) == asked[i + 1] then
    found[#found + 1] = { id, lease.worker, reason }
  else
    redis.call('HDEL', key('cancelled'), id)
  end
end
return found

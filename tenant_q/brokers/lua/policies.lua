-- List the policies in force.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  { schema, weight, cap or 0, most that may wait or 0, paused (1 or 0) }, ...

local found = {}
for _, schema in ipairs(redis.call('HKEYS', key('policy'))) do
  local policy = policy_of(schema)
  found[#found + 1] = { schema_of(schema), tostring(policy.weight), policy.cap, policy.limit, policy.paused and 1 or 0 }
end
return found

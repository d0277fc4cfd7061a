-- Find the packages that may be delivered (again): those in the broker, dead ones included, and those acknowledged late
-- a short time ago, because a replica that takes over may lack the acknowledgement.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     the ids
-- Returns  the ids of such packages among them

local found, now = {}, clock_ms()
for _, id in ipairs(ARGV) do
  local late_until = tonumber(redis.call('ZSCORE', key('late'), id) or '0')
  if redis.call('HEXISTS', key('messages'), id) == 1 or late_until > now then
    found[#found + 1] = id
  end
end
return found

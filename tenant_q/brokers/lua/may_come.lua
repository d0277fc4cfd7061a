-- The ids of packages that may be delivered (again): those that are here, dead ones too, and those acknowledged late a
-- moment ago, for a replica that takes over may not know of the acknowledgement yet.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     the ids
-- Returns  those of them

local found, now = {}, clock_ms()
for _, id in ipairs(ARGV) do
  local late_until = tonumber(redis.call('ZSCORE', key('late'), id) or '0')
  if redis.call('HEXISTS', key('messages'), id) == 1 or late_until > now then
    found[#found + 1] = id
  end
end
return found

-- Return unstarted packages of a living worker to the heads of their queues.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, then for each package two: id, token; in the order in which they were leased
-- Returns  how many were given back

write_though_full()
local given = 0
for i = #ARGV - 1, 2, -2 do
  local lease = lease_held(ARGV[i], ARGV[1], ARGV[i + 1])
  if lease then
    return_unrun(ARGV[i], lease)
    given = given + 1
  end
end
wake(given)
return given

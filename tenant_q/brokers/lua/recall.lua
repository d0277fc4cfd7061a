-- Return packages that a living worker holds and has not started to the heads of their queues.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, then the ids, in the order in which they were to run
-- Returns  how many were returned

local recalled = 0
for i = #ARGV, 2, -1 do
  local lease = lease_of(ARGV[i])
  if lease and lease.worker == ARGV[1] then
    return_unrun(ARGV[i], lease)
    recalled = recalled + 1
  end
end
wake(recalled)
return recalled

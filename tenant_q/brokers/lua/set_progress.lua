-- Keep the progress that running packages reported, for as long as their leases.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     for each package four: worker, id, fraction, text
-- Returns  the number of packages that their workers hold

write_though_full()
local kept = 0
for i = 1, #ARGV, 4 do
  local worker, id = ARGV[i], ARGV[i + 1]
  local lease = lease_of(id)
  if lease and lease.worker == worker then
    redis.call('HSET', key('progress'), id, ARGV[i + 2] .. '\n' .. ARGV[i + 3])
    kept = kept + 1
  end
end
return kept

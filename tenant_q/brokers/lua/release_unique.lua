-- Release the unique key of a leased package that keeps it until its start only.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, 2 id, 3 token
-- Returns  1; 0 if the worker does not hold the lease with this token, or the package has no such key

write_though_full()
local worker, id, token = ARGV[1], ARGV[2], ARGV[3]
local entry = lease_held(id, worker, token) and redis.call('HGET', key('unique_of'), id)
if not entry or string.sub(entry, 1, 1) ~= 's' then
  return 0
end
release_unique({ id })
return 1

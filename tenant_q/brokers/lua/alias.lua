-- Return the id of the task for which another id of a tenant stands (see <tag>:alias in common.lua).
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or '', 3 the other id
-- Returns  the id, or nil

return redis.call('GET', alias_key(queue_of(ARGV[1], ARGV[2]), ARGV[3]))

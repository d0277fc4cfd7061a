-- Return the progress that a tenant's running package reported.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant or '', 3 id
-- Returns  "fraction\ntext", or nil

return place_of(queue_of(ARGV[1], ARGV[2]), ARGV[3]) and redis.call('HGET', key('progress'), ARGV[3])

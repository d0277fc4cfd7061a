-- Note the new name of a tenant's schema. Its queue, and everything else of it, stays where it is.
--
-- KEYS[1]  the tag of a cluster, or of the site
-- ARGV     1 tenant, 2 the schema's name before, 3 its name now
-- Returns  the name of its queue

write_though_full()
local name = claim_queue(ARGV[2], ARGV[1])
redis.call('HSET', key('queue_owners'), name, ARGV[1] .. '\n' .. ARGV[3])
return name

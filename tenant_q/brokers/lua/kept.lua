-- List what is kept of a tenant outside its queue.
--
-- KEYS[1]  the site's tag
-- ARGV     1 schema, 2 tenant or ''
-- Returns  "group;<group>" or "result;<id>", ...

local kept = key('kept:' .. queue_of(ARGV[1], ARGV[2]))
redis.call('ZREMRANGEBYSCORE', kept, '-inf', now_ms())
return redis.call('ZRANGE', kept, 0, -1)

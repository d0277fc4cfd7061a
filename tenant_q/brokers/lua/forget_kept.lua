-- Note that results of a tenant are in no cache any more.
--
-- KEYS[1]  the site's tag
-- ARGV     1 schema, 2 tenant or '', then the names of what was kept (see keep.lua)
-- Returns  how many names are still noted

local kept = key('kept:' .. queue_of(ARGV[1], ARGV[2]))
for i = 3, #ARGV do
  redis.call('ZREM', kept, ARGV[i])
end
return redis.call('ZCARD', kept)

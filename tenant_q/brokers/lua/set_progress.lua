-- Keep how far running packages say they are. It is kept as long as their lease.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     for each package three: id, fraction, text
-- Returns  how many of them are leased

write_though_full()
local kept = 0
for i = 1, #ARGV, 3 do
  local id = ARGV[i]
  if redis.call('HEXISTS', key('leased'), id) == 1 then
    redis.call('HSET', key('progress'), id, ARGV[i + 1] .. '\n' .. ARGV[i + 2])
    kept = kept + 1
  end
end
return kept

-- Which names have series of their own in the metrics. Who has them keeps them.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 what they are names of, 2 how many at most, then names, those in front first
-- Returns  the names

local named, most = key('labels:' .. ARGV[1]), tonumber(ARGV[2])
for i = 3, #ARGV do
  if redis.call('SCARD', named) >= most then
    break
  end
  redis.call('SADD', named, ARGV[i])
end
return redis.call('SMEMBERS', named)

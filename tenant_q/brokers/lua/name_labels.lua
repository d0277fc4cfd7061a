-- Choose the names that have series of their own in the metrics. A name keeps its series as long as it exists. A name
-- that was counted among the others stays there until more names may have series, so that no counter goes back.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 what they are names of, 2 the most names with series, then all names that exist, the first ones preferred
-- Returns  the names

local labels, bound, most = key('labels:' .. ARGV[1]), key('most_labels:' .. ARGV[1]), tonumber(ARGV[2])
local marks, pairs_of = {}, redis.call('HGETALL', labels)
for i = 1, #pairs_of, 2 do
  marks[pairs_of[i]] = pairs_of[i + 1]
end

local own, named = {}, {}
local function name_those(may_have)
  for i = 3, #ARGV do
    local name = ARGV[i]
    if #named < most and not own[name] and may_have(marks[name]) then
      own[name] = true
      named[#named + 1] = name
    end
  end
end

local before = tonumber(redis.call('GET', bound) or '0')
name_those(function(mark) return mark == '1' end)
name_those(function(mark) return mark ~= '0' or most > before end)

local function note(name, mark)
  if marks[name] ~= mark then
    redis.call('HSET', labels, name, mark)
  end
end

for name in pairs(marks) do
  note(name, own[name] and '1' or '0')
end
for i = 3, #ARGV do
  note(ARGV[i], own[ARGV[i]] and '1' or '0')
end
if most ~= before then
  redis.call('SET', bound, most)
end
return named

-- The dead packages, oldest or newest first. It looks no further than it must to find as many as are wanted.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema or '' for all, 2 how many at most, 3 'oldest' or 'newest', the ones that come first
-- Returns  { id, schema, func, ms when it died, cause, payload }, ...

local page = 1000
local schema_wanted, limit = ARGV[1], tonumber(ARGV[2])
local range = ARGV[3] == 'newest' and 'ZREVRANGE' or 'ZRANGE'
local found = {}

local function add(id, died)
  if #found >= limit then
    return
  end
  local schema, func, _, payload = open_message(redis.call('HGET', key('messages'), id))
  if schema_wanted == '' or schema_wanted == schema then
    found[#found + 1] = { id, schema, func, died, redis.call('HGET', key('causes'), id) or '', payload }
  end
end

local first = 0
while #found < limit do
  local ids = redis.call(range, key('dead'), first, first + page - 1, 'WITHSCORES')
  if #ids == 0 then
    break
  end
  for i = 1, #ids, 2 do
    add(ids[i], ids[i + 1])
  end
  first = first + page
end
return found

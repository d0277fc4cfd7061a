-- The dead packages, oldest or newest first. It looks no further than it must to find as many as are wanted, and where
-- ids are given at no others.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema or '' for all, 2 its tenant or '', 3 how many at most, 4 'oldest' or 'newest', the ones that come first,
--          then ids, or none for all
-- Returns  { id, schema as it is called now, func, ms when it died, cause, payload }, ...

local page = 1000
local wanted = queue_of(ARGV[1], ARGV[2])
local limit, newest_first = tonumber(ARGV[3]), ARGV[4] == 'newest'
local found = {}

local function add(id, died)
  if #found >= limit then
    return
  end
  local schema, func, _, payload = open_message(redis.call('HGET', key('messages'), id))
  if not schema then
    forget_broken(id)
  elseif wanted == '' or wanted == schema then
    found[#found + 1] = { id, schema_of(schema), func, died, redis.call('HGET', key('causes'), id) or '', payload }
  end
end

local function add_these()
  local chosen, seen = {}, {}
  for i = 5, #ARGV do
    local died = not seen[ARGV[i]] and redis.call('ZSCORE', key('dead'), ARGV[i])
    if died then
      seen[ARGV[i]] = true
      chosen[#chosen + 1] = { id = ARGV[i], died = died }
    end
  end
  table.sort(chosen, function(a, b)
    local x, y = tonumber(a.died), tonumber(b.died)
    if newest_first then
      x, y, a, b = y, x, b, a
    end
    return x < y or (x == y and a.id < b.id)
  end)
  for _, one in ipairs(chosen) do
    add(one.id, one.died)
  end
end

local function add_all()
  local range, first = newest_first and 'ZREVRANGE' or 'ZRANGE', 0
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
end

if #ARGV > 4 then
  add_these()
else
  add_all()
end
return found

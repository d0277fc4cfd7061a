-- List dead packages, oldest or newest first. A call reads no more of them than it needs to find the wanted number, and
-- at most a thousand; the next call continues behind the last one. If ids are given, it reads only these.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, or '' for all, 2 its tenant or '', 3 the most packages, 4 'oldest' or 'newest', the ones that come
--          first, 5 where to begin, from 0, 6 the package at which the previous call ended, or '', then ids, or none
--          for all
-- Returns  { where the next call begins or -1, the package at which this call ended,
--            { id, schema as it is called now, func, ms when it died, cause, payload }, ... }

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
  for i = 7, #ARGV do
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

-- Return where the next call begins, and the package at which this one ended.
local function add_page()
  local range, rank = 'ZRANGE', 'ZRANK'
  if newest_first then
    range, rank = 'ZREVRANGE', 'ZREVRANK'
  end
  local at = ARGV[6] ~= '' and redis.call(rank, key('dead'), ARGV[6])  -- others may have been added or removed since
  local first = at and at + 1 or tonumber(ARGV[5])
  local ids = redis.call(range, key('dead'), first, first + page - 1, 'WITHSCORES')
  for i = 1, #ids, 2 do
    add(ids[i], ids[i + 1])
  end
  return #ids == 2 * page and #found < limit and first + page or -1, ids[#ids - 1] or ''
end

local next_first, last = -1, ''
if #ARGV > 6 then
  add_these()
else
  next_first, last = add_page()
end
return { next_first, last, unpack(found) }

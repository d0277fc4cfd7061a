-- The dead packages, oldest first.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema or '' for all, 2 how many at most
-- Returns  { id, schema, func, ms when it died, cause, payload }, ...

local schema_wanted, limit = ARGV[1], tonumber(ARGV[2])
local found = {}
local ids = redis.call('ZRANGE', key('dead'), 0, -1, 'WITHSCORES')
for i = 1, #ids, 2 do
  if #found == limit then
    break
  end
  local id, died = ids[i], ids[i + 1]
  local schema, func, _, payload = open_message(redis.call('HGET', key('messages'), id))
  if schema_wanted == '' or schema_wanted == schema then
    found[#found + 1] = { id, schema, func, died, redis.call('HGET', key('causes'), id) or '', payload }
  end
end
return found

-- Put packages on their tenants' queues. An id that is known is passed over.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 how many packages the tenant of the first one is to have room for (less those of them that are known
--          already), or 0 where its limit does not count; then for each package seven: id, schema, tenant or '', func,
--          once ('1' or '0'), delay in ms, payload
-- Returns  { how many were not known before }, or where there is no room { 0, the limit, how many wait }, or where a tenant
--          was deleted { 0, the tenant }; then nothing is enqueued

local wanted = tonumber(ARGV[1])

-- The queue of each package's tenant.
local queues, names = {}, {}
for i = 2, #ARGV, 7 do
  local schema, tenant = ARGV[i + 1], ARGV[i + 2]
  local owner = tenant .. '\n' .. schema
  if not names[owner] then
    if is_deleted(tenant) then
      return { 0, tenant }
    end
    names[owner] = queue_of(schema, tenant)
  end
  queues[i] = names[owner]
end

-- Whether an id of a finished task must not be enqueued again.
local function is_done(id, once)
  return once == '1' and redis.call('ZSCORE', key('known'), id)
end

if wanted > 0 then
  local schema = queues[2]
  local limit = policy_of(schema).limit
  if limit > 0 then
    for i = 2, #ARGV, 7 do
      local id = ARGV[i]
      if redis.call('HEXISTS', key('messages'), id) == 1 or is_done(id, ARGV[i + 4]) then
        wanted = wanted - 1
      end
    end
    local waits = redis.call('LLEN', key('queue:' .. schema)) + delayed_of(schema)
    if wanted > 0 and waits + wanted > limit then
      return { 0, limit, waits }
    end
  end
else
  write_though_full()  -- what the cluster itself enqueues is in place of what it acknowledges
end

for i = 2, #ARGV, 7 do
  local owner = ARGV[i + 2] .. '\n' .. ARGV[i + 1]
  if names[owner] then
    claim_queue(ARGV[i + 1], ARGV[i + 2])
    names[owner] = nil
  end
end

local accepted, by_schema = 0, {}
for i = 2, #ARGV, 7 do
  local id, schema, func, once, delay, payload =
    ARGV[i], queues[i], ARGV[i + 3], ARGV[i + 4], tonumber(ARGV[i + 5]), ARGV[i + 6]
  local message = schema .. '\n' .. func .. '\n' .. once .. '\n' .. payload
  if not is_done(id, once) and redis.call('HSETNX', key('messages'), id, message) == 1 then
    if delay > 0 then
      delay_until(schema, id, clock_ms() + delay)
    else
      by_schema[schema] = by_schema[schema] or {}
      table.insert(by_schema[schema], id)
    end
    accepted = accepted + 1
  end
end

for schema, ids in pairs(by_schema) do
  redis.call('RPUSH', key('queue:' .. schema), unpack(ids))
  enter_ring(schema)
end
wake(accepted)
return { accepted }

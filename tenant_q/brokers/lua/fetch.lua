-- Lease a batch: slices of the tenants with the smallest virtual time.
--
-- A function whose run time is unknown or long runs alone, and so does a package that may have killed a machine.
-- What is taken is charged at once by its expected cost, and settled when it is acknowledged or given back.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, 2 lease in ms, 3 most packages, 4 budget in ms, 5 most packages of one slice,
--          6 ms charged for an unknown function
-- Returns  { ms until the first delayed package is due or -1,
--            { id, schema, token, starts or '', verdict or '', payload }, ... }

write_though_full()
local worker, lease_ms, limit, budget = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local slice, unknown_cost = tonumber(ARGV[5]), tonumber(ARGV[6])
local now = now_ms()

-- A worker fetches with empty hands. What it still holds was leased by a fetch whose answer got lost.
for _, id in ipairs(redis.call('ZREVRANGE', key('held:' .. worker), 0, -1)) do
  return_unrun(id, lease_of(id))
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('delayed'), '-inf', now, 'LIMIT', 0, 256)) do
  local schema = open_message(redis.call('HGET', key('messages'), id))
  end_delay(schema, id)
  push(schema, id, false)
end

local function take(schema, id, cost, alone, message)
  local token = redis.call('INCR', key('token'))
  local _, _, _, payload = open_message(message)
  local charged = virtual(schema, cost)
  redis.call('LPOP', key('queue:' .. schema))
  take_lease(id, { token = token, worker = worker, schema = schema, charged = charged, alone = alone }, now + lease_ms)
  charge(schema, charged)
  return { id, schema, tostring(token), redis.call('HGET', key('starts'), id) or '',
    redis.call('HGET', key('verdicts'), id) or '', payload }
end

local taken = {}
local touched = {}
local spent = 0
local full = false
while not full and #taken < limit do
  local head = redis.call('ZRANGE', key('ready'), 0, 0, 'WITHSCORES')
  local schema = head[1]
  if not schema then
    break
  end
  local ring = tonumber(redis.call('GET', key('ring')) or '0')
  if tonumber(head[2]) > ring then
    redis.call('SET', key('ring'), head[2])
  end
  local of_this = 0
  touched[schema] = true
  while not full and of_this < slice and #taken < limit do
    local id = redis.call('LINDEX', key('queue:' .. schema), 0)
    if not id then
      redis.call('ZREM', key('ready'), schema)
      break
    end
    local message = redis.call('HGET', key('messages'), id)
    local _, func = open_message(message)
    local learned = redis.call('HGET', key('costs'), schema .. ';' .. func)
    local expected = learned and tonumber(learned)
    local runs_alone = not expected or expected >= budget or redis.call('SISMEMBER', key('alone'), id) == 1
    if runs_alone and #taken > 0 then
      full = true
    else
      taken[#taken + 1] = take(schema, id, expected or unknown_cost, runs_alone, message)
      of_this = of_this + 1
      spent = spent + (expected or budget)
      full = runs_alone or spent >= budget
    end
  end
  if redis.call('LLEN', key('queue:' .. schema)) == 0 then
    redis.call('ZREM', key('ready'), schema)
  end
end

-- This worker was free to take more of a capped tenant; from here on it counts as busy with it.
for schema in pairs(touched) do
  if is_held(schema) then
    redis.call('ZREM', key('ready'), schema)
  end
end

local first = redis.call('ZRANGE', key('delayed'), 0, 0, 'WITHSCORES')[2]
local due_in = first and math.max(0, tonumber(first) - now) or -1

-- A worker that saw no reason to look again (its token was used up by an empty fetch) is told that there is more, or
-- that something is due soon: this one is busy now.
local is_more = (full or #taken == limit) and redis.call('ZCARD', key('ready')) > 0
local is_soon = #taken > 0 and due_in >= 0 and due_in < 1000
if is_more or is_soon then
  wake(1)
end

table.insert(taken, 1, due_in)
return taken

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

local worker, lease_ms, limit, budget = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local slice, unknown_cost = tonumber(ARGV[5]), tonumber(ARGV[6])
local now = now_ms()

-- A worker fetches with empty hands. What it still holds was leased by a fetch whose answer got lost.
for _, id in ipairs(redis.call('ZREVRANGE', key('held:' .. worker), 0, -1)) do
  return_unrun(id, lease_of(id))
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', key('delayed'), '-inf', now, 'LIMIT', 0, 256)) do
  redis.call('ZREM', key('delayed'), id)
  local message = redis.call('HGET', key('messages'), id)
  if message then
    push((open_message(message)), id, false)
  end
end

local function take(schema, id, cost, alone, message)
  local token = redis.call('INCR', key('token'))
  local _, _, _, payload = open_message(message)
  redis.call('LPOP', key('queue:' .. schema))
  redis.call('ZADD', key('leases'), now + lease_ms, id)
  redis.call('HSET', key('leased'), id, cmsgpack.pack({ token, worker, schema, cost, alone }))
  redis.call('ZADD', key('held:' .. worker), token, id)
  charge(schema, cost)
  return { id, schema, tostring(token), redis.call('HGET', key('starts'), id) or '',
    redis.call('HGET', key('verdicts'), id) or '', payload }
end

local taken = {}
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
  while not full and of_this < slice and #taken < limit do
    local id = redis.call('LINDEX', key('queue:' .. schema), 0)
    if not id then
      redis.call('ZREM', key('ready'), schema)
      break
    end
    local message = redis.call('HGET', key('messages'), id)
    if not message then
      redis.call('LPOP', key('queue:' .. schema))
    else
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
  end
  if redis.call('LLEN', key('queue:' .. schema)) == 0 then
    redis.call('ZREM', key('ready'), schema)
  end
end

-- A worker that saw no reason to look again (its token was used up by an empty fetch) is told there is more.
if full or #taken == limit then
  if redis.call('ZCARD', key('ready')) > 0 then
    wake(1)
  end
end

local first = redis.call('ZRANGE', key('delayed'), 0, 0, 'WITHSCORES')[2]
table.insert(taken, 1, first and math.max(0, tonumber(first) - now) or -1)
return taken

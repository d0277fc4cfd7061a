-- Lease a batch: slices of the tenants with the smallest virtual time.
--
-- A function whose run time is unknown or long runs alone, and so does a package that may have killed a machine. A
-- function that is new to a tenant, but not to others, is expected to take several times as long as for them.
-- The next tenant's turn comes when a slice holds its part of the batch's work. Short packages share a slice, because
-- each slice costs its worker some round trips.
-- A tenant is charged the expected cost at once; the charge is settled when the package is acknowledged or given back.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, 2 lease in ms, 3 most packages, 4 budget in ms, 5 slices of a batch, 6 charge in ms for an unknown
--          function, 7 factor of the expected cost of a function that is new to a tenant, 8 a random word for the
--          fencing tokens, 9 most bytes of packages; a larger package is fetched alone, 10 packages of a small batch: a
--          larger one is at most a quarter of what is queued, so that the other workers get their share of a burst
-- Returns  { ms until the first delayed package is due or -1,
--            { id, token, starts or '', give-up reason or '', message as it is stored,
--              how the last worker died whose death was charged to it, or '' }, ... }

write_though_full()
local worker, lease_ms, limit, budget = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local slice, unknown_cost, new_factor = budget / tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local word, most_bytes = ARGV[8], tonumber(ARGV[9])
local now = clock_ms()

-- A worker that fetches holds nothing. If it still has leases, the answer of their fetch got lost.
for _, id in ipairs(redis.call('ZREVRANGE', key('held:' .. worker), 0, -1)) do
  return_unrun(id, lease_of(id), worker)
end

-- Move a tenant's due packages, at most `most`, behind its queued ones. If more are due, its next turn comes after
-- those of the other tenants with due packages.
local function queue_due(schema, most)
  local delayed = key('delayed:' .. schema)
  local ids = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, most)
  if #ids > 0 then
    end_delays(schema, ids)
    redis.call('RPUSH', key('queue:' .. schema), unpack(ids))
    enter_ring(schema)
  end
  local first = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')[2]
  if first then
    redis.call('ZADD', key('due'), math.max(tonumber(first), now), schema)
  else
    redis.call('ZREM', key('due'), schema)
  end
end

-- Queue due packages of at most 256 tenants, and at most 256 in all (or one for each tenant).
-- The first of all due packages belongs to a tenant in <tag>:due, unless an earlier version delayed it.
local function queue_all_due(first, due)
  local most = 256
  local schemas, is_noted = redis.call('ZRANGEBYSCORE', key('due'), '-inf', now, 'LIMIT', 0, most), false
  local owner = open_message(redis.call('HGET', key('messages'), first))
  for _, schema in ipairs(schemas) do
    is_noted = is_noted or schema == owner
  end
  if not owner then
    forget_broken(first)
  elseif not is_noted then
    redis.call('ZADD', key('delayed:' .. owner), due, first)
    table.insert(schemas, owner)
  end
  for _, schema in ipairs(schemas) do
    queue_due(schema, math.max(1, math.floor(most / #schemas)))
  end
end

local first = redis.call('ZRANGE', key('delayed'), 0, 0, 'WITHSCORES')
if first[2] and tonumber(first[2]) <= now then
  queue_all_due(first[1], first[2])
  first = redis.call('ZRANGE', key('delayed'), 0, 0, 'WITHSCORES')
end

local queued = redis.call('HLEN', key('messages')) - redis.call('ZCARD', key('leases'))
  - redis.call('ZCARD', key('delayed')) - redis.call('ZCARD', key('dead'))
limit = math.min(limit, math.max(tonumber(ARGV[10]), math.floor(queued / 4)))

local taken = {}
local spent, bytes = 0, 0
local full = false
local is_any_alone = redis.call('EXISTS', key('alone')) == 1

-- Return the expected run time of a function for a tenant, in ms; false if it is unknown.
local costs = {}
local function expected_cost(schema, func)
  local field = cost_field(schema, func)
  if costs[field] == nil then
    local own = redis.call('HGET', key('costs'), field)
    local of_all = not own and redis.call('HGET', key('costs'), cost_field_of_all(func))
    costs[field] = tonumber(own) or tonumber(of_all) and new_factor * of_all or false
  end
  return costs[field]
end

-- The charge of each tenant for this batch, and its virtual time after it.
local charges, times = {}, {}

-- Take packages from the head of a tenant's queue, at most `most`, until the budget of a slice or a batch is spent. The
-- tenant is charged at most `room`.
local function take_slice(schema, most, room)
  local ids = redis.call('LRANGE', key('queue:' .. schema), 0, most - 1)
  local weight = policy_of(schema).weight
  local charged, count, dropped, spent_here = 0, 0, 0, 0
  for _, id in ipairs(ids) do
    local message = redis.call('HGET', key('messages'), id)
    local home, func, once = open_message(message)
    local expected = home and expected_cost(schema, func)
    local runs_alone = not expected or expected >= budget
      or (is_any_alone and redis.call('SISMEMBER', key('alone'), id) == 1)
    if not home then
      forget_broken(id)
      dropped = dropped + 1
    elseif #taken > 0 and (runs_alone or bytes + #message > most_bytes) then
      full = true
    else
      local cost = math.min((expected or unknown_cost) / weight, math.max(0, room - charged))
      local lease = { worker = worker, schema = schema, charged = cost, alone = runs_alone, func = func, once = once }
      taken[#taken + 1] = { id = id, lease = lease, message = message }
      charged, count = charged + cost, count + 1
      bytes = bytes + #message
      spent = spent + (expected or budget)
      spent_here = spent_here + (expected or budget)
      full = runs_alone or spent >= budget
    end
    if full or spent_here >= slice then
      break
    end
  end
  if count + dropped > 0 then
    redis.call('LTRIM', key('queue:' .. schema), count + dropped, -1)
  end
  if count > 0 then
    redis.call('HINCRBY', key('running:' .. schema), worker, count)
    charges[schema] = (charges[schema] or 0) + charged
    times[schema] = redis.call('ZINCRBY', key('ready'), charged, schema)
  end
end

-- Set the ring's virtual time to that of the tenant whose turn it is. If no other tenant waits, leave out its leases in
-- force: they are charged when they end, by the time for which others waited.
-- Returns  the charge that still fits within the tenant's largest debt
local function note_turn(schema, own, is_alone)
  local ring, time = tonumber(redis.call('GET', key('ring'))) or 0, tonumber(own)
  if is_alone and time > ring then
    time = time - (tonumber(redis.call('HGET', key('ahead'), schema)) or 0) - (charges[schema] or 0)
  end
  if time > ring then
    redis.call('SET', key('ring'), time)
  end
  return math.max(ring, time) + most_debt - tonumber(own)
end

local touched = {}
while not full and #taken < limit do
  local head = redis.call('ZRANGE', key('ready'), 0, 1, 'WITHSCORES')
  local schema = head[1]
  if not schema then
    break
  end
  touched[schema] = true
  take_slice(schema, limit - #taken, note_turn(schema, head[2], not head[3]))
  if redis.call('LLEN', key('queue:' .. schema)) == 0 then
    redis.call('ZREM', key('ready'), schema)
  end
end

for schema, charged in pairs(charges) do
  redis.call('HSET', key('vtime'), schema, times[schema])
  redis.call('HINCRBYFLOAT', key('ahead'), schema, charged)
end

-- Give a lease on each, with a token that is greater than all earlier ones.
local function lease_taken()
  local token = redis.call('INCRBY', key('token'), #taken) - #taken
  local ids, deadlines, packed, held, answer = {}, {}, {}, {}, {}
  for i, one in ipairs(taken) do
    one.lease.token = token + i
    ids[i] = one.id
    deadlines[2 * i - 1], deadlines[2 * i] = now + lease_ms, one.id
    one.lease.fetch = word
    packed[2 * i - 1], packed[2 * i] = one.id, pack_lease(one.lease)
    held[2 * i - 1], held[2 * i] = one.lease.token, one.id
  end
  redis.call('ZADD', key('leases'), unpack(deadlines))
  redis.call('HSET', key('leased'), unpack(packed))
  redis.call('ZADD', key('held:' .. worker), unpack(held))
  local starts = redis.call('HMGET', key('starts'), unpack(ids))
  local reasons = redis.call('HMGET', key('verdicts'), unpack(ids))
  for i, one in ipairs(taken) do
    local death = starts[i] and redis.call('HGET', key('deaths'), one.id)
    answer[i] = { one.id, fencing_token(one.lease), starts[i] or '', reasons[i] or '', one.message, death or '' }
  end
  return answer
end

local answer = #taken > 0 and lease_taken() or {}

-- This worker was free to take more of a capped tenant; from here on it counts as busy with it.
for schema in pairs(touched) do
  if is_held(schema) then
    redis.call('ZREM', key('ready'), schema)
  end
end

local due_in = first[2] and math.max(0, tonumber(first[2]) - now) or -1

-- This worker is busy now. Wake another one if there is more, or if a package is due soon: the other's last token may
-- have been used up by an empty fetch.
local is_more = (full or #taken == limit) and redis.call('ZCARD', key('ready')) > 0
local is_soon = #taken > 0 and due_in >= 0 and due_in < 1000
if is_more or is_soon then
  wake(1)
end

table.insert(answer, 1, due_in)
return answer

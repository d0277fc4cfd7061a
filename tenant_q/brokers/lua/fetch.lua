-- Lease a batch: slices of the tenants with the smallest virtual time.
--
-- A function whose run time is unknown or long runs alone, and so does a package that may have killed a machine. A
-- function that is new to a tenant, but not to others, is expected to take several times as long as for them.
-- The next tenant's turn comes when a slice holds its part of the batch's work. Short packages share a slice, because
-- each slice costs its worker some round trips.
-- A tenant's packages with a higher priority come first. A rate counts leases: one that is returned has used its start.
-- A tenant is charged the expected cost at once; the charge is settled when the package is acknowledged or given back.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, 2 lease in ms, 3 most packages, 4 budget in ms, 5 slices of a batch, 6 charge in ms for an unknown
--          function, 7 factor of the expected cost of a function that is new to a tenant, 8 a random word for the
--          fencing tokens, 9 most bytes of packages; a larger package is fetched alone, 10 packages of a small batch: a
--          larger one is at most a quarter of what is queued, so that the other workers get their share of a burst
-- Returns  { ms until the first delayed package is due or a package of a parked rate may start, or -1,
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
    push_all(schema, ids, redis.call('EXISTS', key('lanes')) == 1)
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

-- Serve a rate key whose next package may start: open it for as many of the tenants that wait for it, in their order,
-- as packages may start. A tenant that its cap or pause keeps out of the ring is opened too, but not counted. If nobody
-- takes a start, the next tenant's turn comes after the time of one, so that a tenant which owes the ring time does not
-- hold up the others.
local function serve_rate(rate)
  local next_start, interval, starts = starts_of(rate)
  local opened = 0
  for _, schema in ipairs(starts > 0 and redis.call('ZRANGE', key('turns:' .. rate), 0, 15) or {}) do
    if opened == starts then
      break
    end
    unpark(schema, rate)
    open_rate(schema, rate)
    if not is_held(schema) then
      opened = opened + 1
    end
    if has_work(schema) then
      enter_ring(schema)
    end
  end
  if redis.call('EXISTS', key('turns:' .. rate)) == 1 then
    local due = opened > 0 and now + opened * interval or next_start
    redis.call('ZADD', key('rate_due'), math.max(due, now + shortest_parking), rate)
  end
end

local is_any_laned = redis.call('EXISTS', key('laned')) == 1
if is_any_laned then
  for _, rate in ipairs(redis.call('ZRANGEBYSCORE', key('rate_due'), '-inf', now, 'LIMIT', 0, 16)) do
    serve_rate(rate)
  end
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

-- Take packages from the head of a list of a tenant, at most `most`, until the budget of a slice or a batch is spent.
-- part     the slice: its schema, its tenant's weight, the most that it is charged, and what it holds so far
-- Returns  how many were taken, and how many left the list
local function take_from(list, part, most)
  local count, dropped = 0, 0
  for _, id in ipairs(redis.call('LRANGE', list, 0, most - 1)) do
    local message = redis.call('HGET', key('messages'), id)
    local home, func, once = open_message(message)
    local expected = home and expected_cost(part.schema, func)
    local runs_alone = not expected or expected >= budget
      or (is_any_alone and redis.call('SISMEMBER', key('alone'), id) == 1)
    if not home then
      forget_broken(id)
      dropped = dropped + 1
    elseif #taken > 0 and (runs_alone or bytes + #message > most_bytes) then
      full = true
    else
      local cost = math.min((expected or unknown_cost) / part.weight, math.max(0, part.room - part.charged))
      local lease = {
        worker = worker, schema = part.schema, charged = cost, alone = runs_alone, func = func, once = once,
      }
      taken[#taken + 1] = { id = id, lease = lease, message = message }
      part.charged, count = part.charged + cost, count + 1
      bytes = bytes + #message
      spent = spent + (expected or budget)
      part.spent = part.spent + (expected or budget)
      full = runs_alone or spent >= budget
    end
    part.is_full = full or part.spent >= slice
    if part.is_full then
      break
    end
  end
  if count + dropped > 0 then
    redis.call('LTRIM', list, count + dropped, -1)
  end
  part.count = part.count + count
  return count, count + dropped
end

-- Take packages of a rate key, no more than may start. If no more may start, the key is parked.
local function take_rated(rate, part, most)
  local schema = part.schema
  local level = redis.call('ZRANGE', key('levels:' .. schema .. ';' .. rate), 0, 0)[1]
  if not level then
    redis.call('ZREM', key('open:' .. schema), ';' .. rate)
    return
  end
  local lane = lane_key(schema, level, rate)
  local next_start, interval, starts = starts_of(rate, lane)
  local count, left = 0, 0
  if starts > 0 then
    count, left = take_from(lane, part, math.min(most, starts))
  end
  if count > 0 then
    next_start = next_start + count * interval
    keep_rate(rate, interval, next_start)
  end
  leave_lane(schema, level, rate, left)
  if redis.call('ZSCORE', key('open:' .. schema), ';' .. rate) then
    if count == starts then
      park(schema, rate, next_start)
    else
      open_rate(schema, rate)
    end
  end
end

-- Take packages of a tenant that has lanes: from the lane of the highest level, of equal levels from the one that was
-- served longest ago. The tenant's queue is one of them, with the level 0.
local function take_from_lanes(part, most)
  local schema = part.schema
  local open, queue = key('open:' .. schema), key('queue:' .. schema)
  if redis.call('LLEN', queue) > 0 and not redis.call('ZSCORE', open, '0') then
    open_lane(schema, '0', '0')
  end
  while not part.is_full and part.count < most do
    local lane = redis.call('ZRANGE', open, 0, 0)[1]
    if not lane then
      break
    elseif string.sub(lane, 1, 1) == ';' then
      take_rated(string.sub(lane, 2), part, most - part.count)
    elseif lane == '0' then
      take_from(queue, part, most - part.count)
      redis.call('ZREM', open, lane)
      if redis.call('LLEN', queue) > 0 then
        open_lane(schema, lane, lane)
      end
    else
      local _, left = take_from(lane_key(schema, lane), part, most - part.count)
      leave_lane(schema, lane, nil, left)
      if redis.call('ZSCORE', open, lane) then
        open_lane(schema, lane, lane)
      end
    end
  end
end

-- Take packages of a tenant, at most `most`. The tenant is charged at most `room`.
local function take_slice(schema, most, room)
  local part = { schema = schema, weight = policy_of(schema).weight, room = room, charged = 0, spent = 0, count = 0 }
  if is_any_laned and redis.call('HEXISTS', key('laned'), schema) == 1 then
    take_from_lanes(part, most)
  else
    take_from(key('queue:' .. schema), part, most)
  end
  if part.count > 0 then
    redis.call('HINCRBY', key('running:' .. schema), worker, part.count)
    charges[schema] = (charges[schema] or 0) + part.charged
    times[schema] = redis.call('ZINCRBY', key('ready'), part.charged, schema)
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
  local is_left = redis.call('LLEN', key('queue:' .. schema)) > 0 or (is_any_laned and has_work(schema))
  if not is_left then
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

local due = tonumber(first[2])
if is_any_laned then
  local rate_due = tonumber(redis.call('ZRANGE', key('rate_due'), 0, 0, 'WITHSCORES')[2])
  due = rate_due and math.min(rate_due, due or rate_due) or due
end
local due_in = due and math.max(0, math.ceil(due - now)) or -1

-- This worker is busy now. Wake another one if there is more, or if a package is due soon: the other's last token may
-- have been used up by an empty fetch.
local is_more = (full or #taken == limit) and redis.call('ZCARD', key('ready')) > 0
local is_soon = #taken > 0 and due_in >= 0 and due_in < 1000
if is_more or is_soon then
  wake(1)
end

table.insert(answer, 1, due_in)
return answer

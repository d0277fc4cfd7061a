-- Forget packages whose outcome is saved, learn what they cost, and settle their tenants' accounts.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, 2 ms an acknowledged deterministic id stays known, then for each package five:
--          id, token, ms used, ms waited, and the places of <tag>:figures (see common.lua) where it counts, as '1 5 30'
-- Returns  the ids refused, because the token no longer fits

write_though_full()
local remember_ms = tonumber(ARGV[2])
local now = now_ms()
-- New estimates weigh an eighth, so that one slow run does not send a function into solitude.
local new_weight = 0.125

local ids, tokens, used, waited, places = {}, {}, {}, {}, {}
for i = 3, #ARGV, 5 do
  local n = #ids + 1
  ids[n], tokens[n], used[n] = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  waited[n], places[n] = tonumber(ARGV[i + 3]), ARGV[i + 4]
end

-- What is settled, by tenant, and the runs, by function.
local refused, settled, tenants, known, samples = {}, {}, {}, {}, {}

local function learn(field, ms)
  samples[field] = samples[field] or {}
  table.insert(samples[field], ms)
end

-- The operators' figures. What a tenant has done, by function: ms run, ms waited, and how often the same places of
-- <tag>:figures are counted.
local period_ms, kept_ms, places_in_all = 300000, 4200000, 54

local function note_done(tenant, func, n)
  local done = tenant.done[func] or { ms = 0, waited = 0, counted = {} }
  tenant.done[func] = done
  done.ms, done.waited = done.ms + used[n], done.waited + waited[n]
  done.counted[places[n]] = (done.counted[places[n]] or 0) + 1
end

local function add_done(added, done)
  added[3], added[4] = (added[3] or 0) + done.ms, (added[4] or 0) + done.waited
  for counted, times in pairs(done.counted) do
    for place in string.gmatch(counted, '%d+') do
      place = tonumber(place)
      added[place] = (added[place] or 0) + times
    end
  end
end

local function add_figures(name, field, added)
  local packed = redis.call('HGET', key(name), field)
  local figures = packed and cmsgpack.unpack(packed) or {}
  for place = #figures + 1, places_in_all do
    figures[place] = 0
  end
  for place, amount in pairs(added) do
    figures[place] = figures[place] + amount
  end
  redis.call('HSET', key(name), field, cmsgpack.pack(figures))
end

-- With what was there when five minutes began, the figures tell what was done since.
local function keep_figures_as_they_were()
  local kept = key('figures:' .. math.floor(now / period_ms))
  if redis.call('EXISTS', kept) == 1 then
    return
  end
  local dump = redis.call('DUMP', key('figures'))
  if dump then
    redis.call('RESTORE', kept, kept_ms, dump)
  else
    redis.call('HSET', kept, '', '')
    redis.call('PEXPIRE', kept, kept_ms)
  end
end

local packed = redis.call('HMGET', key('leased'), unpack(ids))
local done = {}
for i, id in ipairs(ids) do
  local lease = not done[id] and unpack_lease(packed[i], tokens[i])
  if not lease then
    refused[#refused + 1] = id
  else
    done[id] = true
    settled[#settled + 1] = id
    local schema, func = lease.schema, lease.func
    local tenant = tenants[schema]
      or { ids = {}, owed = 0, weight = policy_of(schema).weight, worker = lease.worker, done = {} }
    tenants[schema] = tenant
    table.insert(tenant.ids, id)
    tenant.owed = tenant.owed + used[i] / tenant.weight - lease.charged
    if lease.once == '1' then
      table.insert(known, now)
      table.insert(known, id)
    end
    note_done(tenant, func, i)
    learn(cost_field(schema, func), used[i])
    learn(cost_field_of_all(func), used[i])
  end
end

for schema, tenant in pairs(tenants) do
  charge(schema, tenant.owed)
  drop_leases(schema, tenant.worker, tenant.ids)
end

for field, runs in pairs(samples) do
  local expected = tonumber(redis.call('HGET', key('costs'), field) or runs[1])
  for _, ms in ipairs(runs) do
    -- Of all tenants' runs the longest counts: where a function is new it is to be taken for long rather than short.
    local is_longest = is_of_all(field) and ms > expected
    expected = is_longest and ms or expected + new_weight * (ms - expected)
  end
  redis.call('HSET', key('costs'), field, expected)
end

if #settled > 0 then
  keep_figures_as_they_were()
  local by_func = {}
  for schema, tenant in pairs(tenants) do
    local added = {}
    for func, done in pairs(tenant.done) do
      add_done(added, done)
      by_func[func] = by_func[func] or {}
      add_done(by_func[func], done)
    end
    add_figures('figures', schema, added)
  end
  for func, added in pairs(by_func) do
    add_figures('functions', func, added)
  end
  drop_histories(settled)
  redis.call('HDEL', key('messages'), unpack(settled))
end
if #known > 0 then
  redis.call('ZADD', key('known'), unpack(known))
end
redis.call('ZREMRANGEBYSCORE', key('known'), '-inf', now - remember_ms)
if #refused > 0 then
  redis.call('HINCRBY', key('statistics'), 'stale_acks', #refused)
end
return refused

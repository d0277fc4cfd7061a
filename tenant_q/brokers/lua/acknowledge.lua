-- Forget packages whose outcome is saved, learn their run times, and settle their tenants' accounts.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, 2 ms for which an acknowledged deterministic id stays known, 3 the most functions with figures and
--          estimates of their own, then for each package five: id, token, ms used, ms waited, and the places of the
--          counts that it adds to (see <tag>:figures in common.lua), one character each, '0' for the first
-- Returns  the refused ids: the worker does not hold their leases with these tokens

write_though_full()
local worker, remember_ms, most_functions = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local now = now_ms()
-- A new time weighs an eighth in the estimate, so that one slow run does not make a function run alone.
local new_weight = 0.125

local ids, tokens, used, waited, places = {}, {}, {}, {}, {}
for i = 4, #ARGV, 5 do
  local n = #ids + 1
  ids[n], tokens[n], used[n] = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  waited[n], places[n] = tonumber(ARGV[i + 3]), ARGV[i + 4]
end

-- The settled packages, by tenant, and the run times, by field of <tag>:costs.
local refused, settled, tenants, known, samples = {}, {}, {}, {}, {}

local function learn(field, ms)
  samples[field] = samples[field] or {}
  table.insert(samples[field], ms)
end

-- The operators' figures: the work of a tenant, by function, as ms run, ms waited, and how often the same places count.
local function note_done(by_func, func, n)
  local done = by_func[func] or { ms = 0, waited = 0, counted = {} }
  by_func[func] = done
  done.ms, done.waited = done.ms + used[n], done.waited + waited[n]
  done.counted[places[n]] = (done.counted[places[n]] or 0) + 1
end

local known_places = {}
local function known_place(name)
  known_places[name] = known_places[name] or redis.call('HGET', key('figure_places'), name)
  return known_places[name]
end

local function place_of_figures(name)
  local at = known_place(name)
  if not at then
    at = redis.call('LPOP', key('free_places'))
    if at then
      redis.call('HDEL', key('figure_places'), free_place(at))
    else
      at = redis.call('HLEN', key('figure_places'))
    end
    redis.call('HSET', key('figure_places'), name, at)
    known_places[name] = at
  end
  return at
end

-- Return the name under which a function is counted: its own, or, above the limit, one that all others share. No run
-- times are learned for that one. So names that are made in bulk do not fill the server.
local counted_names = {}
local function counted_name(func)
  local name = counted_names[func]
  if not name then
    name = func
    if not known_place(cost_field_of_all(func)) then
      if tonumber(redis.call('GET', key('functions')) or '0') < most_functions then
        place_of_figures(cost_field_of_all(func))
        redis.call('INCR', key('functions'))
      else
        name = other_functions
      end
    end
    counted_names[func] = name
  end
  return name
end

local function add_figures(name, all_done)
  local first = place_of_figures(name) * figure_words
  local ms, waited, n, call = 0, 0, 2, { 'BITFIELD', key('figures') }
  for _, done in ipairs(all_done) do
    ms, waited = ms + done.ms, waited + done.waited
    for counted, times in pairs(done.counted) do
      for i = 1, #counted do
        call[n + 1], call[n + 2], call[n + 4] = 'INCRBY', 'u32', times
        call[n + 3] = '#' .. (first + string.byte(counted, i) - 48)
        n = n + 4
      end
    end
  end
  call[n + 1], call[n + 2], call[n + 3], call[n + 4] =
    'INCRBY', 'i64', 32 * (first + figure_words - 4), math.floor(1000 * ms + 0.5)
  call[n + 5], call[n + 6], call[n + 7], call[n + 8] = 'INCRBY', 'i64', 32 * (first + figure_words - 2), waited
  redis.call(unpack(call))
end

-- Keep the figures as they were when a period of five minutes began. The difference is the work done since then.
local function keep_figures_as_they_were()
  local kept = key('figures:' .. this_period())
  if redis.call('EXISTS', kept) == 0 then
    redis.call('SET', kept, redis.call('GET', key('figures')) or '', 'PX', kept_periods * period_ms)
  end
end

-- Count a tenant's runs of a function in this part of the day: under its own name, or, above the limit, under one that
-- all others of the tenant share.
local function add_to_day(schema, func, done)
  local part, expires = part_of(this_period())
  local name = key('day_functions:' .. part .. ';' .. schema)
  local at = place_of_figures(cost_field_of_all(func))
  local kept = redis.call('HGET', name, at)
  if not kept and func ~= other_functions and redis.call('HLEN', name) >= most_day_functions then
    func, at = other_functions, place_of_figures(cost_field_of_all(other_functions))
    kept = redis.call('HGET', name, at)
  end
  local failed, counts = 0, {}
  for counted, times in pairs(done.counted) do
    local outcome, run = string.byte(counted, 1, 2)
    failed = failed + (outcome - 48) * times
    local place = math.max(1, math.min(day_places, math.floor((run - 48 - 2 - 1) / 2) + 1))
    counts[place] = (counts[place] or 0) + times
  end
  add_runs(name, at, kept, failed, math.floor(1000 * done.ms + 0.5), counts)
  if not kept then
    redis.call('PEXPIREAT', name, string.format('%.0f', expires))
    keep_day_name(at, func, expires)
  end
end

local packed = redis.call('HMGET', key('leased'), unpack(ids))
local done = {}
for i, id in ipairs(ids) do
  local lease = not done[id] and unpack_lease(packed[i])
  if not is_held_by(lease, worker, tokens[i]) then
    refused[#refused + 1] = id
  else
    done[id] = true
    settled[#settled + 1] = id
    local schema, func = lease.schema, lease.func
    local tenant = tenants[schema]
      or { ids = {}, used = 0, charged = 0, done = {} }
    tenants[schema] = tenant
    table.insert(tenant.ids, id)
    tenant.used, tenant.charged = tenant.used + used[i], tenant.charged + lease.charged
    if lease.once == '1' then
      table.insert(known, clock_ms())
      table.insert(known, id)
    end
    func = counted_name(func)
    note_done(tenant.done, func, i)
    if used[i] > 0 and func ~= other_functions then  -- a package given up without a run teaches nothing
      learn(cost_field(schema, func), used[i])
      learn(cost_field_of_all(func), used[i])
    end
  end
end

if #settled > 0 then
  settle(tenants)
end
for schema, tenant in pairs(tenants) do
  drop_leases(schema, worker, tenant.ids)
end

for field, runs in pairs(samples) do
  local expected = tonumber(redis.call('HGET', key('costs'), field)) or runs[1]
  for _, ms in ipairs(runs) do
    expected = expected + new_weight * (ms - expected)
  end
  redis.call('HSET', key('costs'), field, expected)
end

-- The figures come last, so that an error in them leaves nothing half done.
if #settled > 0 then
  drop_histories(settled)
  drop_messages(settled)
end
if #known > 0 then
  redis.call('ZADD', key('known'), unpack(known))
end
redis.call('ZREMRANGEBYSCORE', key('known'), '-inf', clock_ms() - remember_ms)
if #refused > 0 then
  redis.call('HINCRBY', key('statistics'), 'stale_acks', #refused)
end
if #settled > 0 then
  keep_figures_as_they_were()
  local by_func = {}
  for schema, tenant in pairs(tenants) do
    local all_done = {}
    for func, done in pairs(tenant.done) do
      all_done[#all_done + 1] = done
      by_func[func] = by_func[func] or {}
      table.insert(by_func[func], done)
      add_to_day(schema, func, done)
    end
    add_figures(schema, all_done)
  end
  for func, all_done in pairs(by_func) do
    add_figures(cost_field_of_all(func), all_done)
  end
end
return refused

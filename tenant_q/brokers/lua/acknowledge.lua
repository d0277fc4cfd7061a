-- Forget packages whose outcome is saved, learn what they cost, and settle their tenants' accounts.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, 2 ms an acknowledged deterministic id stays known, then for each package three:
--          id, token, ms used
-- Returns  the ids refused, because the token no longer fits

write_though_full()
local remember_ms = tonumber(ARGV[2])
local now = now_ms()
-- New estimates weigh an eighth, so that one slow run does not send a function into solitude.
local new_weight = 0.125

local ids, tokens, used = {}, {}, {}
for i = 3, #ARGV, 3 do
  local n = #ids + 1
  ids[n], tokens[n], used[n] = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
end

-- What is settled, by tenant, and the runs, by function.
local refused, settled, tenants, known, samples = {}, {}, {}, {}, {}

local function learn(field, ms)
  samples[field] = samples[field] or {}
  table.insert(samples[field], ms)
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
      or { ids = {}, owed = 0, weight = policy_of(schema).weight, worker = lease.worker }
    tenants[schema] = tenant
    table.insert(tenant.ids, id)
    tenant.owed = tenant.owed + used[i] / tenant.weight - lease.charged
    if lease.once == '1' then
      table.insert(known, now)
      table.insert(known, id)
    end
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

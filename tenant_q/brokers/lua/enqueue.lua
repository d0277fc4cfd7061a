-- Put packages on their tenants' queues. Known ids are skipped, and so are packages whose unique key another one has.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 the number of packages that the tenant of the first one must have room for (known ones are subtracted), or
--          0 if its limit does not count, then for each package eight: id, schema, tenant or '', func, once ('1' or
--          '0'), delay in ms, payload, and '' or its terms: "source\nlane\nunique key", where each may be empty. The
--          source is the id of the package that it follows. A lane is "level;ms between starts or nothing;'site' if its
--          rate counts over all tenants". A unique key is 'e' or 's' (see <tag>:unique_of), '1' or '0' (whether its id
--          becomes an alias if another package has the key), and "func\nkey"
-- Returns  { how many were not known before }, followed by { id, id of the package that has its key, ... } if there are
--          such packages; without room { 0, the limit, how many wait }; if a tenant was deleted { 0, the tenant }; if
--          one is being decommissioned { 0, the tenant, 'leaving' }. In the last three cases nothing is enqueued

local wanted = tonumber(ARGV[1])
local stride = 8  -- the arguments of one package

-- The queue of each package, and for each tenant without a claimed queue the place of its first package in ARGV.
local queues, names, unclaimed = {}, {}, {}
for i = 2, #ARGV, stride do
  local schema, tenant = ARGV[i + 1], ARGV[i + 2]
  local owner = tenant .. '\n' .. schema
  if not names[owner] then
    if is_deleted(tenant) then
      return { 0, tenant }
    end
    if is_leaving(tenant) then
      return { 0, tenant, 'leaving' }
    end
    local name = claimed_queue(schema, tenant)
    names[owner] = name or free_queue(schema, tenant)
    if not name then
      unclaimed[#unclaimed + 1] = i
    end
  end
  queues[i] = names[owner]
end

-- Return the source, the lane and the unique key of a package.
local function terms_of(terms)
  if terms == '' then
    return '', '', ''
  end
  return string.match(terms, '^([^\n]*)\n([^\n]*)\n(.*)$')
end

-- Return whether an id belongs to a finished task and must not be enqueued again.
local function is_done(id, once, source)
  return once == '1' and (redis.call('ZSCORE', key('known'), id)
    or (source ~= '' and redis.call('HGET', key('followed'), source) == id))
end

local function field_of(schema, unique)
  return schema .. '\n' .. string.sub(unique, 3)
end

-- Return the id of another package that has the unique key of a package; nil if that is free or its own.
local function other_holder(id, schema, unique)
  local holder = unique ~= '' and holder_of(field_of(schema, unique))
  return holder and holder ~= id and holder or nil
end

-- As long as a package exists, it may be delivered again, and the package that follows it enqueued again.
local function note_followed(id, source)
  if source ~= '' and redis.call('HEXISTS', key('messages'), source) == 1 then
    redis.call('HSET', key('followed'), source, id)
  end
end

if wanted > 0 then
  local schema = queues[2]
  local limit = policy_of(schema).limit
  if limit > 0 then
    for i = 2, #ARGV, stride do
      local id = ARGV[i]
      local source, _, unique = terms_of(ARGV[i + 7])
      if redis.call('HEXISTS', key('messages'), id) == 1 or is_done(id, ARGV[i + 4], source)
        or other_holder(id, schema, unique) then
        wanted = wanted - 1
      end
    end
    local waits = queued_of(schema) + delayed_of(schema)
    if wanted > 0 and waits + wanted > limit then
      return { 0, limit, waits }
    end
  end
else
  write_though_full()  -- a package from the cluster itself takes the place of one that it acknowledges
end

for _, i in ipairs(unclaimed) do
  claim_queue(ARGV[i + 1], ARGV[i + 2])
end

-- The life of an alias, at least.
local alias_ms = 24 * 3600 * 1000

-- Note that a package is not enqueued, because another one has its unique key.
local joined = {}
local function join(id, holder, schema, unique)
  joined[#joined + 1], joined[#joined + 2] = id, holder
  if string.sub(unique, 2, 2) == '1' then
    local due = tonumber(redis.call('ZSCORE', key('delayed'), holder) or '0')
    redis.call('SET', alias_key(schema, id), holder, 'PX', alias_ms + math.floor(math.max(0, due - clock_ms())))
  end
end

local function take_key(id, schema, unique)
  local field = field_of(schema, unique)
  redis.call('HSET', key('unique'), field, id)
  redis.call('HSET', key('unique_of'), id, string.sub(unique, 1, 1) .. field)
end

-- A link of a chain that follows a cancelled one is cancelled too: the chain ends.
local function inherit_cancel(id, source)
  local reason = source ~= '' and is_cancelled(source) and redis.call('HGET', key('verdicts'), source)
  if reason then
    redis.call('HSET', key('verdicts'), id, reason)
  end
end

-- Note the lane of a new package, and the rate that its function has from now on.
local is_any_laned, rates = false, {}
local function note_lane(id, schema, func, lane)
  local level, interval, scope = string.match(lane, '^(-?%d+);([^;]*);(.*)$')
  local rate = interval == '' and '' or (scope == 'site' and cost_field_of_all(func) or cost_field(schema, func))
  redis.call('HSET', key('lanes'), id, level .. ';' .. interval .. ';' .. rate)
  is_any_laned = true
  if rate ~= '' then
    rates[rate] = interval
  end
end

local accepted, by_schema = 0, {}
for i = 2, #ARGV, stride do
  local id, schema, func, once, delay, payload =
    ARGV[i], queues[i], ARGV[i + 3], ARGV[i + 4], tonumber(ARGV[i + 5]), ARGV[i + 6]
  local source, lane, unique = terms_of(ARGV[i + 7])
  local message = schema .. '\n' .. func .. '\n' .. once .. '\n' .. payload
  local is_known = is_done(id, once, source) or (unique ~= '' and redis.call('HEXISTS', key('messages'), id) == 1)
  local holder = not is_known and other_holder(id, schema, unique)
  if holder then
    join(id, holder, schema, unique)
  elseif not is_known and redis.call('HSETNX', key('messages'), id, message) == 1 then
    inherit_cancel(id, source)
    if unique ~= '' then
      take_key(id, schema, unique)
    end
    if lane ~= '' then
      note_lane(id, schema, func, lane)
    end
    if delay > 0 then
      delay_until(schema, id, clock_ms() + delay)
    else
      by_schema[schema] = by_schema[schema] or {}
      table.insert(by_schema[schema], id)
    end
    accepted = accepted + 1
  end
  note_followed(id, source)
end

for rate, interval in pairs(rates) do
  local kept = redis.call('HMGET', key('rate:' .. rate), 'interval', 'next')
  local next_start
  if kept[1] and tonumber(kept[1]) ~= tonumber(interval) then  -- what is parked may start sooner
    next_start = kept[2] and math.min(kept[2], clock_ms() + interval)
    redis.call('ZADD', key('rate_due'), 'XX', clock_ms(), rate)
  end
  keep_rate(rate, interval, next_start)
end
for schema, ids in pairs(by_schema) do
  push_all(schema, ids, is_any_laned)
end
wake(accepted)
return #joined > 0 and { accepted, joined } or { accepted }

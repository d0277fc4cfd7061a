-- The functions that the scripts share. A script is sent with those that it uses in front.
--
-- KEYS[1]  the cluster's hash tag, {tq:<cluster>}. All keys are derived under it, so they share one slot:
--   <tag>:queues             hash    tenant -> the name of its queue. It stands for the tenant in all keys and fields
--                                    below, where they say "schema": the schema's name for the first tenant of that
--                                    name, "<schema>#<tenant>" for a later one. So nothing of a tenant meets what an
--                                    earlier one left
--   <tag>:queue_owners       hash    name of a queue -> "tenant\nschema": its tenant, and the name its schema has now
--   <tag>:deleted            zset    tenants deleted a short time ago -> when that is forgotten, in ms
--   <tag>:leaving            set     tenants that are being decommissioned: nothing is enqueued for them. A cluster of an
--                                    earlier version does not know it
--   <tag>:messages           hash    id -> "schema\nfunc\nonce\npayload"
--   <tag>:queue:<schema>     list    ids that wait, the first to run at the head: those without priority and rate
--   <tag>:lanes              hash    id -> "level;ms between starts or nothing;rate key or nothing" of packages that
--                                    have a priority or a rate. A rate key is "schema;func", or "*;func" if the rate
--                                    counts over all tenants
--   <tag>:lane:<schema>;<level>
--   <tag>:lane:<schema>;<level>;<rate key>
--                            list    ids with that priority, without a rate and with this one, as in queue:<schema>
--   <tag>:laned              hash    schema -> how many of its packages are in lanes
--   <tag>:open:<schema>      zset    the lanes that may be served: "<level>", ";<rate key>", and "0" for queue:<schema>
--                                    while the tenant has lanes -> the highest level first, of equal levels the one
--                                    that was served longest ago
--   <tag>:levels:<schema>;<rate key>
--                            zset    levels of the lanes with this rate key -> the level, negative
--   <tag>:parked:<schema>    set     rate keys whose lanes wait until a package of this rate may start
--   <tag>:turns:<rate key>   zset    the tenants in which it is parked, the first to be served first
--   <tag>:rate_due           zset    rate key that is parked somewhere -> when its next tenant may be served, in ms
--   <tag>:rate:<rate key>    hash    interval -> ms between starts, as enqueued last; next -> when the next package may
--                                    start, in ms. Expires an hour after its last use
--   <tag>:lane_turn          string  a number that grows with each turn of a lane
--   <tag>:sweep              hash    laned, lanes, unique_of -> where the next scan of that hash begins (see
--                                    expire.lua)
--   <tag>:ready              zset    schema -> virtual time; the fair ring: tenants with work
--   <tag>:vtime              hash    schema -> virtual time; a tenant without work keeps it while it is ahead of the
--                                    ring's
--   <tag>:ahead              hash    schema -> the part of its virtual time that is the charge for leases in force
--   <tag>:ring               string  the ring's own virtual time; it never goes back
--   <tag>:waited             hash    '' -> since when the ring has not been empty, in ms; schema -> until when, since
--                                    then, the tenant was alone in the ring. An earlier version writes neither: then
--                                    others count as waiting
--   <tag>:costs              hash    "schema;func" -> expected milliseconds of one run; "*;func" -> the same over all
--                                    tenants
--   <tag>:leases             zset    id -> deadline in ms
--   <tag>:leased             hash    id -> packed {token, worker, schema, charged virtual ms, alone, func, once,
--                                    fetch}: `fetch` is the random word of the fetch that leased it
--   <tag>:held:<worker>      zset    ids the worker holds, by token
--   <tag>:running:<schema>   hash    worker -> how many of the tenant's packages it holds; a cap counts its length
--   <tag>:policy             hash    schema -> packed {weight, cap or 0, most that wait or 0, paused}
--   <tag>:starts             hash    id -> runs that ended with their worker's death (0: given back unstarted)
--   <tag>:deaths             hash    id -> how the last worker died whose death was charged to it; expires a week after
--                                    the last death, because clusters of an earlier version do not delete its entries
--   <tag>:alone              set     ids to be delivered one at a time
--   <tag>:verdicts           hash    id -> its give-up reason: why it is given up instead of run
--   <tag>:cancelled          hash    id -> token of the lease that was in force when it was cancelled
--   <tag>:progress           hash    id -> "fraction\ntext" of leased packages that report it
--   <tag>:delayed            zset    id -> due time in ms
--   <tag>:delayed:<schema>   zset    the same of one tenant: how many wait, and which
--   <tag>:due                zset    schema -> when the first of its delayed packages is due, in ms; if more were due
--                                    than one fetch moves, the time of that fetch, so that other tenants come first. A
--                                    tenant whose packages an earlier version delayed is missing or too late here: it
--                                    is found when one of its packages is the first of all
--   <tag>:waiting            hash    schema -> how many of its packages are delayed
--   <tag>:unready            set     those delayed ids that wait for their tenant to be there
--   <tag>:dead               zset    id -> when it died, in ms
--   <tag>:causes             hash    id -> why it died
--   <tag>:dead_of            hash    schema -> how many of its packages are dead
--   <tag>:kept:<schema>      zset    what is kept of a tenant outside its queue, "group;<group>" or "result;<id>" ->
--                                    until when, in ms; under the site's tag
--   <tag>:known              zset    ids of acknowledged packages that must not be enqueued again, by time
--   <tag>:followed           hash    id -> the id of the package that follows it, which stays known as long as this one
--                                    exists
--   <tag>:unique             hash    "schema\nfunc\nkey" -> the id of the package that has this unique key: it waits or
--                                    runs
--   <tag>:unique_of          hash    id -> "e" or "s" (until its end or its start), followed by the field of
--                                    <tag>:unique; only of packages with a unique key. A dead one keeps the entry, and
--                                    has no key
--   <tag>:alias:<schema>;<id> string  the id of the task that a caller got an id for which is none of its own: another
--                                    package had the unique key. It expires a day after that task was due
--   <tag>:late               zset    ids acknowledged long after their rows were saved -> until when the id is kept, in
--                                    ms
--   <tag>:token              string  the last fencing token given
--   <tag>:epoch              string  a number that a scheduler raises each second while workflow runs are open, by which it
--                                    notices that the server lost data, and the id of the server's run that wrote it
--   <tag>:wake               list    tokens that idle workers wait for
--   <tag>:expired            string  when the last scan for expired leases ran, in ms
--   <tag>:shift              string  the ms by which the server's clock was set back. The cluster's clock is ahead of
--                                    the server's by them; times of leases, delays, known and late are by the cluster's
--                                    clock
--   <tag>:statistics         hash    stale_acks, expired, broken -> how often
--   <tag>:broken             list    broken entries that were dropped or moved aside, "what;name", until they are
--                                    logged
--   <tag>:aside:<name>       any     a key of the wrong type that was found under <tag>:<name>, for a day
--   <tag>:figures            string  the figures of acknowledged tasks, in words of 32 bits, 56 for each tenant and
--                                    function: how many are done, failed, 25 of runs by their time (up to 1, 2, 4 ...
--                                    2^23 ms, and longer), 25 of waits by their time, and in two words each the
--                                    microseconds run and the ms waited
--   <tag>:figure_places      hash    schema or "*;func" -> which 56 words of <tag>:figures are its own, from 0;
--                                    "~free;<n>" -> n if the nth place is free again
--   <tag>:free_places        list    the places that are free again
--   <tag>:functions          string  how many functions have words of their own
--   <tag>:figures:<n>        string  <tag>:figures as it was when something was first acknowledged in the nth five
--                                    minutes of the epoch; it expires after 70 minutes
--   <tag>:day:<schema>       list    an element for each period of five minutes of the last day in which the tenant had
--                                    something done or queued, in order, as `brokers/redis/day_elements.py` packs it: in
--                                    front the number of the period, 3 bytes. It expires a day after the begin of the
--                                    last one
--   <tag>:day                list    the same of all tenants together
--   <tag>:day_functions:<n>;<schema>
--                            hash    place in <tag>:figure_places of a function -> packed {failed, microseconds run, 11
--                                    counts of runs by their time (up to 4, 16 ... 4^10 ms, and longer)} of the tenant
--                                    in the nth four hours of the epoch; it expires 20 hours after these
--   <tag>:day_functions:<n>  hash    the same of all tenants together
--   <tag>:day_tenants:<n>    hash    schema -> "done,failed,microseconds run" in the nth four hours; it expires as those
--   <tag>:day_busy:<n>       hash    schema -> the ms for which workers were busy with its tasks in the nth five minutes of
--                                    the epoch, from samples; '' -> the ms that the samples cover, of all sentinels. It
--                                    is deleted when the period is recorded, and expires after 70 minutes
--   <tag>:day_names          hash    place -> the name of the function, of all in <tag>:day_functions:...; it expires as
--                                    the last of those
--   <tag>:day_recorded       string  the last period that is in <tag>:day:...; it expires after 70 minutes
--   <tag>:labels:<kind>      hash    name of a tenant, of a function -> 1 if it has series of its own in the metrics, 0
--                                    if it was counted under "other"
--   <tag>:most_labels:<kind> string  how many could have series of their own at the last scrape
--
-- These keys stay when no package is queued or runs:
--   for each tenant    its queue's name, policy, figures (224 bytes), label, learned costs, an entry of <tag>:waited,
--                      and its virtual time while it has a debt; release_queue.lua and its caller remove them with the
--                      tenant
--   for each function  costs, figures and a label, for at most 1,000 names, and as many again for each tenant
--   for a time         <tag>:known and <tag>:alias:... for a day, <tag>:deleted for as long as the caller says,
--                      <tag>:figures:<n> for 70 minutes, <tag>:day... for a day after the last task that they count, at
--                      most 20 kB for each tenant, <tag>:rate:<rate key> for an hour, and up to a day more if the rate
--                      is one a day
--   single values      <tag>:ring, <tag>:token, <tag>:epoch, <tag>:lane_turn, <tag>:expired, <tag>:statistics, and at most
--                      64 words of <tag>:wake

local tag = KEYS[1]
local figure_words = 56
-- The length of a period of the figures.
local period_ms = 300000
-- For how long the figures are kept as they were when a period began.
local kept_periods = 14
-- The figures of a day: its periods, and its parts of four hours, in which functions and tenants are counted.
local day_periods = 288
local part_periods = 48
local day_parts = 6
-- The number of a tenant's functions with figures of their own in a part; also in `brokers/protocol/limits.py`.
local most_day_functions = 12
-- The number of the counts of runs by their time in a part; also in `brokers/days.py`.
local day_places = 11

-- The types of the keys that belong to one tenant, worker or group.
local own_types = {
  queue = 'list', delayed = 'zset', running = 'hash', held = 'zset', kept = 'zset', group = 'hash', alias = 'string',
  lane = 'list', open = 'zset', levels = 'zset', parked = 'set', turns = 'zset', rate = 'hash', day = 'list',
  day_functions = 'hash',
}
local full_names = {}

local function note_broken(what, name)
  redis.call('HINCRBY', tag .. ':statistics', 'broken', 1)
  redis.call('RPUSH', tag .. ':broken', what .. ';' .. name)
  redis.call('LTRIM', tag .. ':broken', -100, -1)
end

-- Return the full name of a key. Move a key of one tenant, worker or group aside if it has the wrong type: otherwise it
-- would make the scripts fail for all of them.
local function key(name)
  local full = full_names[name]
  if not full then
    full = tag .. ':' .. name
    full_names[name] = full
    local colon = string.find(name, ':', 1, true)
    local wanted = colon and own_types[string.sub(name, 1, colon - 1)]
    local found = wanted and redis.call('TYPE', full).ok
    if wanted and found ~= wanted and found ~= 'none' then
      redis.call('RENAME', full, tag .. ':aside:' .. name)
      redis.call('EXPIRE', tag .. ':aside:' .. name, 86400)
      note_broken('key', name)
    end
  end
  return full
end

-- A full server (maxmemory, noeviction) refuses a script whose first write needs memory. Scripts that work off the
-- queues begin with this write, which needs none; otherwise a full server could never be drained.
local function write_though_full()
  redis.call('DEL', key('full'))
end

-- Return the server's clock, in ms. It stands still while a script runs.
local time_now
local function now_ms()
  if not time_now then
    local time = redis.call('TIME')
    time_now = time[1] * 1000 + math.floor(time[2] / 1000)
  end
  return time_now
end

-- Return the ms by which the cluster's clock is ahead of the server's, because that was set back.
local function clock_shift()
  return tonumber(redis.call('GET', key('shift')) or '0')
end

-- Return the cluster's clock, in ms, for leases, delays and everything that is kept for a time. It is the server's
-- clock but never goes back: when that is set back, it stands still until the next scan for expired leases (see
-- expire.lua).
local clock_now
local function clock_ms()
  clock_now = clock_now or math.max(now_ms() + clock_shift(), tonumber(redis.call('GET', key('expired')) or '0'))
  return clock_now
end

-- Return schema, func, once and payload of a stored message; nothing if there is none or it is broken.
local function open_message(message)
  local a = message and string.find(message, '\n', 1, true)
  local b = a and string.find(message, '\n', a + 1, true)
  if not b or string.sub(message, b + 2, b + 2) ~= '\n' then
    return nil
  end
  return string.sub(message, 1, a - 1), string.sub(message, a + 1, b - 1),
    string.sub(message, b + 1, b + 1), string.sub(message, b + 3)
end

-- Return the name of a tenant's queue if the tenant has claimed it. Without a key ('') the queue is the schema's own
-- and needs no claim: that of the public schema, or of a package from an earlier version.
local function claimed_queue(schema, tenant)
  return tenant == '' and schema or redis.call('HGET', key('queues'), tenant)
end

-- Return the name of the queue that a tenant will claim.
local function free_queue(schema, tenant)
  local owner = redis.call('HGET', key('queue_owners'), schema)
  return owner and string.match(owner, '^[^\n]*') ~= tenant and schema .. '#' .. tenant or schema
end

local function queue_of(schema, tenant)
  return claimed_queue(schema, tenant) or free_queue(schema, tenant)
end

-- Return whether a tenant was deleted a short time ago.
local function is_deleted(tenant)
  return tenant ~= '' and redis.call('ZSCORE', key('deleted'), tenant) ~= false
end

-- Return whether a tenant is being decommissioned.
local function is_leaving(tenant)
  return tenant ~= '' and redis.call('SISMEMBER', key('leaving'), tenant) == 1
end

-- Note that a tenant was deleted, for some ms.
local function note_deleted(tenant, ms)
  local now = now_ms()
  redis.call('ZREMRANGEBYSCORE', key('deleted'), '-inf', now)
  redis.call('ZADD', key('deleted'), now + ms, tenant)
  redis.call('PEXPIRE', key('deleted'), ms)
end

-- Return the name of a tenant's queue, and claim it.
local function claim_queue(schema, tenant)
  local name = claimed_queue(schema, tenant)
  if not name then
    name = free_queue(schema, tenant)
    redis.call('HSET', key('queues'), tenant, name)
    redis.call('HSET', key('queue_owners'), name, tenant .. '\n' .. schema)
  end
  return name
end

-- Return the name that a queue's schema has now.
local function schema_of(name)
  local owner = redis.call('HGET', key('queue_owners'), name)
  return owner and string.match(owner, '\n(.*)$') or name
end

-- Return the table that is packed in a text; nil if there is none.
local function unpack_table(packed)
  if not packed then
    return nil
  end
  local is_read, found = pcall(cmsgpack.unpack, packed)
  return is_read and type(found) == 'table' and found or nil
end

local function policy_of(schema)
  local held = unpack_table(redis.call('HGET', key('policy'), schema))
  if not held or not tonumber(held[1]) or not tonumber(held[2]) then
    return { weight = 1, cap = 0, limit = 0, paused = false }
  end
  return { weight = held[1], cap = held[2], limit = held[3], paused = held[4] }
end

-- Return whether a tenant is kept out of the ring: it is paused, or its cap allows no further worker.
local function is_held(schema)
  local policy = policy_of(schema)
  return policy.paused or (policy.cap > 0 and redis.call('HLEN', key('running:' .. schema)) >= policy.cap)
end

-- Note since when others wait for a tenant that runs, before one more enters the ring.
local is_crowded = false
local function note_wait()
  local first = is_crowded and {} or redis.call('ZRANGE', key('ready'), 0, 1)
  is_crowded = is_crowded or #first > 1
  if not is_crowded then
    redis.call('HSET', key('waited'), first[1] or '', clock_ms())
  end
end

-- Let a tenant into the ring at its own virtual time, or at the ring's if that is later: it gets no credit for having
-- been idle, and keeps its debt.
local function enter_ring(schema)
  if redis.call('ZSCORE', key('ready'), schema) or is_held(schema) then
    return
  end
  note_wait()
  local own = tonumber(redis.call('HGET', key('vtime'), schema) or '0')
  local ring = tonumber(redis.call('GET', key('ring')) or '0')
  local start = math.max(own, ring)
  redis.call('ZADD', key('ready'), start, schema)
  redis.call('HSET', key('vtime'), schema, start)
end

-- Return for how many ms other tenants have been in the ring without a break; nil if there are none.
-- first  the first two tenants in the ring
local function others_waited(first, schema)
  if #first == 0 or (#first == 1 and first[1] == schema) then
    return nil
  end
  local since = redis.call('HMGET', key('waited'), '', schema)
  return clock_ms() - math.max(tonumber(since[1]) or 0, tonumber(since[2]) or 0)
end

-- The largest debt of a tenant, in virtual ms; also in `brokers/protocol/limits.py`.
local most_debt = 3600000

-- Replace the charge for leases that end by the actual cost. A tenant owes the time in which others waited. If no other
-- tenant waits, the ring's virtual time follows the tenant's, as if it had taken turns with all others. The virtual
-- time of a tenant that has caught up is deleted: the tenant will enter at the ring's.
-- accounts  the ms that each tenant used and was charged: schema -> { used, charged }
local function settle(accounts)
  local names = {}
  for schema in pairs(accounts) do
    names[#names + 1] = schema
  end
  local first = redis.call('ZRANGE', key('ready'), 0, 1)
  local ring_before = tonumber(redis.call('GET', key('ring'))) or 0
  local times = redis.call('HMGET', key('vtime'), unpack(names))
  local aheads = redis.call('HMGET', key('ahead'), unpack(names))
  local ring, change = ring_before, {}
  for i, schema in ipairs(names) do
    local used, charged = accounts[schema].used, accounts[schema].charged
    local ahead = math.max(0, (tonumber(aheads[i]) or 0) - charged)
    if ahead < 0.000001 then  -- a rounding error
      ahead = 0
    end
    local before = tonumber(times[i]) or 0
    local own = before - charged
    if used > 0 then
      local waited = others_waited(first, schema)
      own = own + math.min(used, waited or used) / policy_of(schema).weight
      if waited then
        own = math.min(own, math.max(ring_before + most_debt, before - charged))
      else
        ring = math.max(ring, own - ahead)
      end
    end
    aheads[i], times[i], change[i] = ahead, own, own - before
  end

  local kept, gone, kept_ahead, gone_ahead = {}, {}, {}, {}
  local function sort(into, out, schema, value, is_kept)
    if is_kept then
      into[#into + 1], into[#into + 2] = schema, value
    else
      out[#out + 1] = schema
    end
  end
  for i, schema in ipairs(names) do
    local is_in_ring = first[1] == schema or first[2] == schema
      or (#first == 2 and redis.call('ZSCORE', key('ready'), schema) ~= false)
    if is_in_ring and change[i] ~= 0 then
      redis.call('ZINCRBY', key('ready'), change[i], schema)
    end
    sort(kept_ahead, gone_ahead, schema, aheads[i], aheads[i] > 0)
    sort(kept, gone, schema, times[i], is_in_ring or aheads[i] > 0 or times[i] > ring)
  end
  local function write(name, into, out)
    if #into > 0 then
      redis.call('HSET', key(name), unpack(into))
    end
    if #out > 0 then
      redis.call('HDEL', key(name), unpack(out))
    end
  end
  write('vtime', kept, gone)
  write('ahead', kept_ahead, gone_ahead)
  if ring > ring_before then
    redis.call('SET', key('ring'), ring)
  end
end

-- Settle one lease that ends.
local function settle_one(lease, used)
  settle({ [lease.schema] = { used = used, charged = lease.charged } })
end

-- Wake up to `wanted` idle workers. The list stays short: a surplus token costs one empty fetch.
local function wake(wanted)
  local room = 64 - redis.call('LLEN', key('wake'))
  for _ = 1, math.min(wanted, room) do
    redis.call('RPUSH', key('wake'), '1')
  end
end

-- Note what is kept of a tenant outside its queue, "group;<group>" or "result;<id>", for as long as it is kept.
local function keep(queue, what, seconds)
  local kept, now = key('kept:' .. queue), now_ms()
  redis.call('ZREMRANGEBYSCORE', kept, '-inf', now)
  redis.call('ZADD', kept, seconds > 0 and now + 1000 * seconds or '+inf', what)
  local last = tonumber(redis.call('ZRANGE', kept, -1, -1, 'WITHSCORES')[2])
  if last == math.huge then
    redis.call('PERSIST', kept)
  else
    redis.call('PEXPIREAT', kept, last)
  end
  return redis.call('ZCARD', kept)
end

-- Add `change` to the count of a tenant's packages in a hash (<tag>:waiting, <tag>:dead_of, <tag>:laned), and return the
-- new count.
local function count_in(name, schema, change)
  local count = redis.call('HINCRBY', key(name), schema, change)
  if count <= 0 then
    redis.call('HDEL', key(name), schema)
  end
  return count
end

-- Return whether a package was cancelled. It is never run (again), and nothing takes that back.
local function is_cancelled(id)
  local reason = redis.call('HGET', key('verdicts'), id)
  return reason and string.match(reason, '^TaskCancelled')
end

-- Lanes: lists for packages that have a priority or a rate. A level is a text, from '-100' to '100'.

-- The starts of this time in ms may come at once, if nobody took them when they were due. So a start that comes a
-- little late delays none of the later ones. It is also in `brokers/protocol/limits.py`, as is the next one.
local rate_burst = 500
-- A parked rate key stays parked for at least this many ms. Idle workers come for it when it is due.
local shortest_parking = 20
-- The distance of two levels in <tag>:open:<schema>; the turns between are below it.
local level_step = 2 ^ 43

local function lane_key(schema, level, rate)
  return key('lane:' .. schema .. ';' .. level .. (rate and ';' .. rate or ''))
end

-- Return the level and the rate of a package, and the ms between two starts; nil if it has no lane. A cancelled package
-- loses its lane, because it is given up at once and starts nothing.
local function lane_of(id)
  local record = redis.call('HGET', key('lanes'), id)
  local level, interval, rate = string.match(record or '', '^(-?%d+);([^;]*);(.*)$')
  if level and is_cancelled(id) then
    redis.call('HDEL', key('lanes'), id)
    level = nil
  end
  return level and { level = level, interval = tonumber(interval), rate = rate ~= '' and rate or nil }
end

-- Return whether a tenant has a package that may be served.
local function has_work(schema)
  return redis.call('LLEN', key('queue:' .. schema)) > 0 or redis.call('EXISTS', key('open:' .. schema)) == 1
end

-- Put a lane of a tenant behind the others of its level: '<level>' or ';<rate key>'.
local function open_lane(schema, lane, level)
  redis.call('ZADD', key('open:' .. schema), redis.call('INCR', key('lane_turn')) - level * level_step, lane)
end

-- Let the lanes of a rate key be served, unless there are none.
local function open_rate(schema, rate)
  local level = redis.call('ZRANGE', key('levels:' .. schema .. ';' .. rate), 0, 0)[1]
  if level then
    open_lane(schema, ';' .. rate, level)
  end
end

-- Keep the ms between two starts of a rate key.
local function keep_rate(rate, interval, next_start)
  local name = key('rate:' .. rate)
  redis.call('HSET', name, 'interval', interval)
  if next_start then
    redis.call('HSET', name, 'next', next_start)
  end
  redis.call('PEXPIRE', name, string.format('%.0f', 3600000 + 2 * interval))
end

-- Return when the next package of a rate key may start, in ms, the ms between two starts, and how many may start now.
-- lane  a list of such packages, which say the rate if it is not kept any more
local function starts_of(rate, lane)
  local kept, now = redis.call('HMGET', key('rate:' .. rate), 'interval', 'next'), clock_ms()
  local interval = tonumber(kept[1])
  if not interval then
    local first = lane and redis.call('LINDEX', lane, 0)
    local own = first and lane_of(first)
    interval = own and own.interval or 1
  end
  local start = math.max(tonumber(kept[2]) or 0, now - rate_burst)
  return start, interval, start <= now and math.floor((now - start) / interval) + 1 or 0
end

-- Have a tenant's packages of a rate key wait for the key's next start, behind the other tenants that do.
local function park(schema, rate, next_start)
  redis.call('ZREM', key('open:' .. schema), ';' .. rate)
  redis.call('SADD', key('parked:' .. schema), rate)
  redis.call('ZADD', key('turns:' .. rate), 'NX', redis.call('INCR', key('lane_turn')), schema)
  redis.call('ZADD', key('rate_due'), 'NX', math.max(next_start, clock_ms() + shortest_parking), rate)
end

-- End the wait of a tenant for a rate key.
local function unpark(schema, rate)
  redis.call('SREM', key('parked:' .. schema), rate)
  redis.call('ZREM', key('turns:' .. rate), schema)
  if redis.call('EXISTS', key('turns:' .. rate)) == 0 then
    redis.call('ZREM', key('rate_due'), rate)
  end
end

local function push_into_lane(schema, id, lane, at_head)
  local level, rate, open = lane.level, lane.rate, key('open:' .. schema)
  redis.call(at_head and 'LPUSH' or 'RPUSH', lane_key(schema, level, rate), id)
  count_in('laned', schema, 1)
  if not rate then
    if not redis.call('ZSCORE', open, level) then
      open_lane(schema, level, level)
    end
    return
  end
  local is_new_level = redis.call('ZADD', key('levels:' .. schema .. ';' .. rate), -level, level) == 1
  if redis.call('ZSCORE', open, ';' .. rate) then
    if is_new_level and redis.call('ZRANGE', key('levels:' .. schema .. ';' .. rate), 0, 0)[1] == level then
      open_rate(schema, rate)
    end
  elseif redis.call('EXISTS', key('turns:' .. rate)) == 1 then
    park(schema, rate, 0)
  else
    open_rate(schema, rate)
  end
end

-- Note that some packages left a lane. Of an empty lane nothing stays.
local function leave_lane(schema, level, rate, left)
  local is_last = count_in('laned', schema, -left) <= 0
  if redis.call('EXISTS', lane_key(schema, level, rate)) == 0 then
    if rate then
      local levels = key('levels:' .. schema .. ';' .. rate)
      redis.call('ZREM', levels, level)
      if redis.call('EXISTS', levels) == 0 then
        redis.call('ZREM', key('open:' .. schema), ';' .. rate)
        unpark(schema, rate)
      elseif redis.call('ZSCORE', key('open:' .. schema), ';' .. rate) then
        open_rate(schema, rate)
      end
    else
      redis.call('ZREM', key('open:' .. schema), level)
    end
  end
  if is_last then
    redis.call('DEL', key('open:' .. schema))
  end
end

-- Return the lanes of a tenant, { level, rate }, the highest level first; of equal levels those without a rate first.
local function lanes_in_order(schema)
  local lanes, rates = {}, redis.call('SMEMBERS', key('parked:' .. schema))
  for _, lane in ipairs(redis.call('ZRANGE', key('open:' .. schema), 0, -1)) do
    if string.sub(lane, 1, 1) == ';' then
      rates[#rates + 1] = string.sub(lane, 2)
    elseif lane ~= '0' then
      lanes[#lanes + 1] = { level = lane, order = -lane, rate = nil }
    end
  end
  for _, rate in ipairs(rates) do
    for _, level in ipairs(redis.call('ZRANGE', key('levels:' .. schema .. ';' .. rate), 0, -1)) do
      lanes[#lanes + 1] = { level = level, order = -level, rate = rate }
    end
  end
  table.sort(lanes, function(a, b)
    return a.order < b.order or (a.order == b.order and (a.rate or '') < (b.rate or ''))
  end)
  return lanes
end

-- Return how many of a tenant's packages are queued.
local function queued_of(schema)
  return redis.call('LLEN', key('queue:' .. schema)) + tonumber(redis.call('HGET', key('laned'), schema) or '0')
end

-- Return how many packages of each tenant are queued. Every tenant with a queue has a virtual time, a policy that keeps
-- it out of the ring, or packages in lanes.
local function queued_by_tenant()
  local found = {}
  for _, name in ipairs({ 'vtime', 'policy', 'laned' }) do
    for _, schema in ipairs(redis.call('HKEYS', key(name))) do
      found[schema] = found[schema] or queued_of(schema)
    end
  end
  return found
end

-- Queue packages in their lanes, or in their tenant's queue those that have none.
-- is_any_laned  whether one of them may have a lane
local function push_all(schema, ids, is_any_laned)
  local plain = ids
  if is_any_laned then
    plain = {}
    for _, id in ipairs(ids) do
      local lane = lane_of(id)
      if lane then
        push_into_lane(schema, id, lane, false)
      else
        plain[#plain + 1] = id
      end
    end
  end
  if #plain > 0 then
    redis.call('RPUSH', key('queue:' .. schema), unpack(plain))
  end
  if #plain > 0 or has_work(schema) then
    enter_ring(schema)
  end
end

-- Queue a package in its lane, or in its tenant's queue if it has none.
local function push(schema, id, at_head)
  local lane = lane_of(id)
  if lane then
    push_into_lane(schema, id, lane, at_head)
  else
    redis.call(at_head and 'LPUSH' or 'RPUSH', key('queue:' .. schema), id)
  end
  if not lane or has_work(schema) then
    enter_ring(schema)
  end
end

-- The run time of a function is learned for each tenant; for a tenant new to it, that of all tenants counts.
local function cost_field(schema, func)
  return schema .. ';' .. func
end

local function cost_field_of_all(func)
  return '*;' .. func
end

-- Return the field of <tag>:figure_places that marks a place as free. The length of that hash is the number of the
-- first place that was never given.
local function free_place(at)
  return '~free;' .. at
end
-- The name under which functions without figures of their own are counted; also in `brokers/protocol/limits.py`.
local other_functions = 'other'

-- Return the number of the present period.
local function this_period()
  return math.floor(now_ms() / period_ms)
end

-- Return the part of a day in which a period is, and when what is counted in it expires, in ms.
local function part_of(period)
  local part = math.floor(period / part_periods)
  return part, (part + day_parts) * part_periods * period_ms
end

-- Add the runs of a function to a hash of the day's functions.
-- kept    what the hash has of the function; false if it has nothing
-- counts  the runs by their time: place, from 1 -> how many
local function add_runs(name, at, kept, failed, us, counts)
  local own = unpack_table(kept)
  if not own or #own ~= 2 + day_places then
    own = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 }
  end
  own[1], own[2] = (tonumber(own[1]) or 0) + failed, (tonumber(own[2]) or 0) + us
  for place, count in pairs(counts) do
    own[2 + place] = (tonumber(own[2 + place]) or 0) + count
  end
  redis.call('HSET', name, at, cmsgpack.pack(own))
end

-- Keep the name of a function whose place is in a hash of the day's functions, for as long as that.
local function keep_day_name(at, func, expires)
  redis.call('HSET', key('day_names'), at, func)
  redis.call('PEXPIREAT', key('day_names'), string.format('%.0f', expires))
end

-- Return the first period that is not recorded in the day, or whose figures are kept at least.
local function first_unrecorded()
  return math.max(tonumber(redis.call('GET', key('day_recorded')) or '0') + 1, this_period() - kept_periods)
end

-- Return the figures as they were when a period began, or the next one in which something was done; false if nothing was
-- done since.
local function figures_since(period)
  for n = period, this_period() do
    local kept = redis.call('GET', key('figures:' .. n))
    if kept then
      return kept
    end
  end
  return false
end

-- Return the periods that are not recorded in the day, { { number, words, busy }, ... }, and the words now.
-- words_of  returns what is read of the figures; the words are those when the period began, false if nothing was done in
--           it
-- busy_of   returns what is read of the ms for which workers were busy; false if there were no samples
local function unrecorded(words_of, busy_of)
  local found = {}
  for n = first_unrecorded(), this_period() do
    local words, busy = key('figures:' .. n), key('day_busy:' .. n)
    local has_words, has_busy = redis.call('EXISTS', words) == 1, redis.call('EXISTS', busy) == 1
    if has_words or has_busy then
      found[#found + 1] = { n, has_words and words_of(words), has_busy and busy_of(busy) }
    end
  end
  return found, words_of(key('figures'))
end

-- Return the functions of the day of a tenant or of all: { when the first part began, in seconds, then for each function
-- { name, failed, microseconds run, counts of its runs by their time } }.
-- suffix  what the names of the hashes end with, ';<schema>' or nothing
local function functions_of_day(suffix)
  local last = part_of(this_period())
  local by_place, found = {}, { (last - day_parts + 1) * part_periods * period_ms / 1000 }
  for part = last - day_parts + 1, last do
    local kept = redis.call('HGETALL', key('day_functions:' .. part .. suffix))
    for i = 1, #kept, 2 do
      local sums = by_place[kept[i]] or {}
      for j, number in ipairs(unpack_table(kept[i + 1]) or {}) do
        sums[j] = (sums[j] or 0) + (tonumber(number) or 0)
      end
      by_place[kept[i]] = sums
    end
  end
  for at, sums in pairs(by_place) do
    local name = redis.call('HGET', key('day_names'), at)
    if name and #sums == 2 + day_places then
      found[#found + 1] = { name, unpack(sums) }
    end
  end
  return found
end

local function pack_lease(lease)
  return cmsgpack.pack({
    lease.token, lease.worker, lease.schema, lease.charged, lease.alone, lease.func, lease.once, lease.fetch,
  })
end

-- Return the fencing token that a worker gets with a lease. The number orders the leases, but is not enough alone: a
-- replica that takes over may lack the last leases and give their numbers again. A lease of an earlier version has only
-- the number.
local function fencing_token(lease)
  return lease.fetch and lease.token .. '.' .. lease.fetch or tostring(lease.token)
end

-- Return a lease; nil if there is none or it is broken.
local function unpack_lease(packed)
  local held = unpack_table(packed)
  if not held or not tonumber(held[1]) or not held[2] or not held[3] or not tonumber(held[4]) then
    return nil
  end
  return {
    token = held[1], worker = held[2], schema = held[3], charged = held[4], alone = held[5], func = held[6],
    once = held[7], fetch = held[8],
  }
end

local function is_held_by(lease, worker, token)
  return lease and lease.worker == worker and fencing_token(lease) == token
end

-- Return the lease of an id; nil if there is none.
local function lease_of(id)
  return unpack_lease(redis.call('HGET', key('leased'), id))
end

-- Return the lease of an id if this worker holds it with this fencing token, else nil.
local function lease_held(id, worker, token)
  local lease = lease_of(id)
  return is_held_by(lease, worker, token) and lease or nil
end

-- Let a tenant that its cap or pause kept out of the ring enter it again, if it may.
local function enter_ring_again(schema)
  if has_work(schema) and not redis.call('ZSCORE', key('ready'), schema) then
    enter_ring(schema)
    wake(1)
  end
end

-- End leases of one worker on packages of one tenant. Settle their account first: a tenant that its cap kept out may
-- enter the ring here, with its debt.
local function drop_leases(schema, worker, ids)
  redis.call('ZREM', key('leases'), unpack(ids))
  redis.call('HDEL', key('leased'), unpack(ids))
  redis.call('ZREM', key('held:' .. worker), unpack(ids))
  redis.call('HDEL', key('progress'), unpack(ids))
  local running = key('running:' .. schema)
  if redis.call('HINCRBY', running, worker, -#ids) <= 0 then
    redis.call('HDEL', running, worker)
    enter_ring_again(schema)
  end
end

local function drop_lease(id, lease)
  drop_leases(lease.schema, lease.worker, { id })
end

-- Return how many of a tenant's packages are delayed.
local function delayed_of(schema)
  return redis.call('ZCARD', key('delayed:' .. schema))
end

local function delay_until(schema, id, due)
  redis.call('ZADD', key('delayed'), due, id)
  redis.call('ZADD', key('delayed:' .. schema), due, id)
  count_in('waiting', schema, 1)
  local first = redis.call('ZSCORE', key('due'), schema)
  if not first or due < tonumber(first) then
    redis.call('ZADD', key('due'), due, schema)
  end
end

local function end_delays(schema, ids)
  redis.call('ZREM', key('delayed'), unpack(ids))
  redis.call('ZREM', key('delayed:' .. schema), unpack(ids))
  redis.call('SREM', key('unready'), unpack(ids))
  if count_in('waiting', schema, -#ids) <= 0 then
    redis.call('ZREM', key('due'), schema)
  end
end

local function end_delay(schema, id)
  end_delays(schema, { id })
end

-- Return the key of an alias, which stands for a task of a tenant.
local function alias_key(schema, id)
  return key('alias:' .. schema .. ';' .. id)
end

-- Return the id of the package that has a unique key; nil if it is free. A cluster of an earlier version releases no
-- keys, so the package may be gone or dead.
local function holder_of(field)
  local id = redis.call('HGET', key('unique'), field)
  local is_alive = id and redis.call('HEXISTS', key('messages'), id) == 1 and not redis.call('ZSCORE', key('dead'), id)
  return is_alive and id or nil
end

-- Take the key of a package away from it. Its entry in <tag>:unique_of stays.
local function free_unique(id, entry)
  local field = string.sub(entry, 2)
  if redis.call('HGET', key('unique'), field) == id then
    redis.call('HDEL', key('unique'), field)
  end
end

-- Release the unique keys of packages for good.
local function release_unique(ids)
  for i, entry in ipairs(redis.call('HMGET', key('unique_of'), unpack(ids))) do
    if entry then
      free_unique(ids[i], entry)
      redis.call('HDEL', key('unique_of'), ids[i])
    end
  end
end

-- Forget an id without a message, or with a broken one: it cannot be run, listed or retried.
local function forget_broken(id)
  for _, name in ipairs({ 'leases', 'delayed', 'dead' }) do
    redis.call('ZREM', key(name), id)
  end
  local hashes = {
    'messages', 'lanes', 'leased', 'starts', 'deaths', 'verdicts', 'causes', 'cancelled', 'progress', 'followed',
  }
  for _, name in ipairs(hashes) do
    redis.call('HDEL', key(name), id)
  end
  release_unique({ id })
  redis.call('SREM', key('alone'), id)
  redis.call('SREM', key('unready'), id)
  for _, schema in ipairs(redis.call('HKEYS', key('waiting'))) do
    if redis.call('ZREM', key('delayed:' .. schema), id) == 1 then
      count_in('waiting', schema, -1)
    end
  end
  if redis.call('ZCARD', key('dead')) == 0 then
    redis.call('DEL', key('dead_of'))
  end
  note_broken('package', id)
end

-- Return when a delayed package is due by the server's clock, in ms, as text.
local function due_of(id)
  return string.format('%.0f', redis.call('ZSCORE', key('delayed'), id) - clock_shift())
end

-- Return the place of a package of this tenant, 'queued', 'delayed', 'leased' or 'dead'; nil if it has no such package.
local function place_of(schema, id)
  local message = redis.call('HGET', key('messages'), id)
  if not message or open_message(message) ~= schema then
    return nil
  elseif redis.call('HEXISTS', key('leased'), id) == 1 then
    return 'leased'
  elseif redis.call('ZSCORE', key('delayed'), id) then
    return 'delayed'
  end
  return redis.call('ZSCORE', key('dead'), id) and 'dead' or 'queued'
end

-- Forget the messages of packages that are done, dropped or purged, their lanes, the ids of those that follow them, and
-- their unique keys.
local function drop_messages(ids)
  release_unique(ids)
  redis.call('HDEL', key('messages'), unpack(ids))
  redis.call('HDEL', key('lanes'), unpack(ids))
  redis.call('HDEL', key('followed'), unpack(ids))
end

-- Forget what happened to packages. Their messages and places stay.
local function drop_histories(ids)
  if redis.call('HDEL', key('starts'), unpack(ids)) > 0 then  -- who has a death has starts
    redis.call('HDEL', key('deaths'), unpack(ids))
  end
  redis.call('HDEL', key('verdicts'), unpack(ids))
  redis.call('SREM', key('alone'), unpack(ids))
end

local function drop_history(id)
  drop_histories({ id })
end

-- Walks: a walk visits what a tenant has waiting, some of it in each call. It goes through each place from the end to the
-- head: workers take packages from the head, and new ones come to the end, so it misses none that was there when it began,
-- and does not wait for those.
-- Delayed packages come first, then the lanes, then the queue, because a due package moves to the end of one of these.

-- Return the places in which a tenant's packages wait, in the order of a walk.
local function waiting_places(queue, is_queued_wanted, is_delayed_wanted)
  local places = {}
  if is_delayed_wanted then
    places[1] = { name = 'delayed', range = 'ZRANGE', list = key('delayed:' .. queue) }
  end
  if is_queued_wanted then
    for _, lane in ipairs(lanes_in_order(queue)) do
      local name = 'lane;' .. lane.level .. (lane.rate and ';' .. lane.rate or '')
      places[#places + 1] = { name = name, range = 'LRANGE', list = lane_key(queue, lane.level, lane.rate), lane = lane }
    end
    places[#places + 1] = { name = 'queue', range = 'LRANGE', list = key('queue:' .. queue) }
  end
  table.sort(places, function(a, b) return a.name < b.name end)
  return places
end

-- Take packages out of a place in which they wait.
-- behind  how many packages behind these stay there
-- ids     packages that follow each other in the place
-- taken   which of them are taken out: their places in `ids`, and as many as these are
local function leave_place(queue, place, behind, ids, taken)
  if #taken == 0 then
    return
  elseif place.name == 'delayed' then
    local chosen = {}
    for i, at in ipairs(taken) do
      chosen[i] = ids[at]
    end
    end_delays(queue, chosen)
    return
  end
  if behind == 0 and #taken == #ids then
    redis.call('LTRIM', place.list, 0, -#ids - 1)
  else
    local hole = '\0'  -- no package has this id
    for _, at in ipairs(taken) do
      redis.call('LSET', place.list, at - 1 - #ids - behind, hole)
    end
    local is_near_head = 2 * behind > redis.call('LLEN', place.list)
    redis.call('LREM', place.list, is_near_head and #taken or -#taken, hole)
  end
  if place.lane then
    leave_lane(queue, place.lane.level, place.lane.rate, #taken)
  end
end

-- Return how many of these ids, counted from the last one, have together at most so many bytes of messages; at least one.
local function fitting(ids, most_bytes)
  local bytes = 0
  for i = #ids, 1, -1 do
    bytes = bytes + redis.call('HSTRLEN', key('messages'), ids[i])
    if bytes > most_bytes and i < #ids then
      return #ids - i, bytes
    end
  end
  return #ids, bytes
end

-- Return how many packages came behind one since then; nil if it is not in its place any more.
local function added_behind(place, id)
  if id == '' then
    return 0
  elseif place.name == 'delayed' then
    return redis.call('ZREVRANK', place.list, id) or nil
  end
  local at = redis.call('LPOS', place.list, id, 'RANK', -1)
  return at and redis.call('LLEN', place.list) - 1 - at or nil
end

-- Visit the next packages of a walk, and take those out of their places that `choose` chooses.
-- cursor      where the walk begins: '' for its beginning, or "<packages that it has left>\n<place>\n<the first of these>"
-- most        the most packages to visit
-- most_bytes  the most bytes of their messages; nil to visit them without their messages
-- choose      a function that gets an id, its message and its place, and returns whether it is taken out
-- Returns     where the next call begins; '' at the end
local function walk(queue, places, cursor, most, most_bytes, choose)
  local left, begun, first_left = string.match(cursor, '^(%d+)\n([^\n]*)\n(.*)$')
  left, begun, first_left = tonumber(left) or 0, begun or '', first_left or ''

  -- Visit packages of a place; return whether it is at its end.
  local function visit(place)
    local added = added_behind(place, first_left)
    while added do
      if most <= 0 or (most_bytes and most_bytes <= 0) then
        return false
      end
      local ids = redis.call(place.range, place.list, -added - left - most, -added - left - 1)
      if #ids == 0 then
        return true
      end
      local messages = {}
      if most_bytes then
        local count, bytes = fitting(ids, most_bytes)
        most_bytes = count < #ids and 0 or most_bytes - bytes
        ids = { unpack(ids, #ids - count + 1) }
        messages = redis.call('HMGET', key('messages'), unpack(ids))
      end
      local taken = {}
      for i = #ids, 1, -1 do
        if choose(ids[i], messages[i], place) then
          taken[#taken + 1] = i
        elseif first_left == '' then
          first_left = ids[i]
        end
      end
      leave_place(queue, place, added + left, ids, taken)
      left, most = left + #ids - #taken, most - #ids
    end
    return true  -- workers have what the walk had left, and so all that was before it
  end

  for _, place in ipairs(places) do
    if place.name > begun then
      left, first_left = 0, ''
    end
    if place.name >= begun and not visit(place) then
      return string.format('%d\n%s\n%s', left, place.name, first_left)
    end
  end
  return ''
end

-- Forget up to `most` packages of a tenant that wait, queued or delayed. Return how many were forgotten.
local function forget_waiting(queue, most)
  local forgotten = {}
  walk(queue, waiting_places(queue, true, true), '', most, nil, function(id)
    forgotten[#forgotten + 1] = id
    return true
  end)
  if #forgotten > 0 then
    drop_messages(forgotten)
    drop_histories(forgotten)
  end
  return #forgotten
end

-- Move packages of a tenant, which are in no place, to the dead letters. Nothing takes a cancel back.
local function bury(schema, ids, cause)
  local reasons = redis.call('HMGET', key('verdicts'), unpack(ids))
  drop_histories(ids)
  local now, died, causes = now_ms(), {}, {}
  for i, entry in ipairs(redis.call('HMGET', key('unique_of'), unpack(ids))) do
    if reasons[i] and string.match(reasons[i], '^TaskCancelled') then
      redis.call('HSET', key('verdicts'), ids[i], reasons[i])
    end
    if entry then
      free_unique(ids[i], entry)
    end
    died[2 * i - 1], died[2 * i] = now, ids[i]
    causes[2 * i - 1], causes[2 * i] = ids[i], cause
  end
  redis.call('ZADD', key('dead'), unpack(died))
  redis.call('HSET', key('causes'), unpack(causes))
  count_in('dead_of', schema, #ids)
end

-- Return the packages of a tenant that workers hold, id -> lease, and how many they are.
local function held_of(queue)
  local found, count = {}, 0
  for _, worker in ipairs(redis.call('HKEYS', key('running:' .. queue))) do
    for _, id in ipairs(redis.call('ZRANGE', key('held:' .. worker), 0, -1)) do
      local lease = lease_of(id)
      if lease and lease.schema == queue then
        found[id], count = lease, count + 1
      end
    end
  end
  return found, count
end

-- Return a leased package whose lease is missing or broken to the head of its queue, if it has a message.
local function return_without_lease(id, worker)
  redis.call('ZREM', key('leases'), id)
  redis.call('HDEL', key('leased'), id)
  redis.call('HDEL', key('progress'), id)
  local schema = open_message(redis.call('HGET', key('messages'), id))
  if worker then
    redis.call('ZREM', key('held:' .. worker), id)
    if schema and redis.call('HINCRBY', key('running:' .. schema), worker, -1) <= 0 then
      redis.call('HDEL', key('running:' .. schema), worker)
    end
  end
  note_broken('lease', id)
  if schema then
    push(schema, id, true)
  else
    forget_broken(id)
  end
end

-- Return a leased package that was not run to the head of its queue, and refund its tenant the charge.
-- worker  the worker that holds it, if its lease may be missing
local function return_unrun(id, lease, worker)
  if not lease then
    return_without_lease(id, worker)
    return
  end
  settle_one(lease, 0)
  drop_lease(id, lease)
  push(lease.schema, id, true)
end

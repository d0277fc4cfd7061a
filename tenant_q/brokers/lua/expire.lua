-- Give back the packages whose leases ran out: no sentinel was left to see their worker die.
--
-- The scan remembers when it last ran. After a gap, in which the server or every cluster was away, each deadline is
-- extended by that gap instead, so that an outage does not expire the leases of living workers. The new deadline is at
-- most that of a new lease, because some leases were taken near the end of the gap. A package that was leased alone is
-- charged a start. In a larger batch any one may be the cause: none is charged, and each is delivered alone the next
-- time.
--
-- If the server's clock is before the last scan, it was set back. From then on the cluster's clock is ahead of it by
-- the difference, so that leases and delays take no longer. The time since the last scan is not counted.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 gap in ms that counts as an outage, 2 lease in ms
-- Returns  { the number given back, then the broken entries that were dropped or moved aside, as "what;name" }

write_though_full()
local step = tonumber(redis.call('GET', key('expired')) or '0') - (now_ms() + clock_shift())
if step > 0 then
  redis.call('INCRBY', key('shift'), step)
end
local now = clock_ms()
local last = tonumber(redis.call('GET', key('expired')) or now)
redis.call('SET', key('expired'), now)

local gap = now - last
if gap > tonumber(ARGV[1]) then
  local latest = now + tonumber(ARGV[2])
  local found = redis.call('ZRANGE', key('leases'), 0, -1, 'WITHSCORES')
  for i = 1, #found, 2 do
    local deadline = tonumber(found[i + 1])
    redis.call('ZADD', key('leases'), math.max(deadline, math.min(deadline + gap, latest)), found[i])
  end
  return { 0 }
end

local ids = redis.call('ZRANGEBYSCORE', key('leases'), '-inf', now, 'LIMIT', 0, 256)
-- A batch has one deadline, so only the tokens show the order in which the packages were leased.
local leases, due = {}, ids
ids = {}
for _, id in ipairs(due) do
  leases[id] = lease_of(id)
  if leases[id] then
    ids[#ids + 1] = id
  else
    return_without_lease(id)
  end
end
table.sort(ids, function(a, b) return leases[a].token < leases[b].token end)
for i = #ids, 1, -1 do
  local id = ids[i]
  local lease = leases[id]
  return_unrun(id, lease)
  redis.call('HINCRBY', key('starts'), id, lease.alone and 1 or 0)
  if lease.alone then
    redis.call('HDEL', key('deaths'), id)  -- it is not known how this worker died
  end
  redis.call('SADD', key('alone'), id)
end
if #ids > 0 then
  redis.call('HINCRBY', key('statistics'), 'expired', #ids)
end
wake(#due)
-- Delete charges of tenants without leases, which an earlier version or a failover may have left.
for _, schema in ipairs(redis.call('HKEYS', key('ahead'))) do
  if redis.call('EXISTS', key('running:' .. schema)) == 0 then
    redis.call('HDEL', key('ahead'), schema)
  end
end

-- Return some fields of a hash, others in each scan.
local function some_of(name)
  local cursor = string.match(redis.call('HGET', key('sweep'), name) or '', '^%d+$')
  if not cursor or #cursor > 19 then
    cursor = '0'  -- HSCAN would fail, and no lease would expire any more
  end
  local found = redis.call('HSCAN', key(name), cursor, 'COUNT', 64)
  if found[1] == '0' then
    redis.call('HDEL', key('sweep'), name)
  else
    redis.call('HSET', key('sweep'), name, found[1])
  end
  local fields = {}
  for i = 1, #found[2], 2 do
    fields[#fields + 1] = found[2][i]
  end
  return fields
end

-- A cluster of an earlier version knows no lanes: it takes a tenant that has nothing else out of the ring, and leaves
-- the lanes of packages that it acknowledges.
if redis.call('EXISTS', key('lanes')) == 1 then
  for _, schema in ipairs(some_of('laned')) do
    enter_ring_again(schema)
  end
  for _, id in ipairs(some_of('lanes')) do
    if redis.call('HEXISTS', key('messages'), id) == 0 then
      redis.call('HDEL', key('lanes'), id)
    end
  end
end

-- Nor does it know unique keys: release those of packages that it has acknowledged or dead-lettered.
for _, id in ipairs(some_of('unique_of')) do
  if redis.call('HEXISTS', key('messages'), id) == 0 then
    release_unique({ id })
  end
end

local answer = redis.call('LRANGE', key('broken'), 0, -1)
redis.call('DEL', key('broken'))
table.insert(answer, 1, #ids)
return answer

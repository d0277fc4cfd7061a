-- Shared by every script: it is put in front of each before it is sent.
--
-- KEYS[1]  the cluster's hash tag, {tq:<cluster>}. All keys are derived under it, so they share one slot:
--   <tag>:messages        hash    id -> "schema\nfunc\nonce\npayload"
--   <tag>:queue:<schema>  list    ids that wait, first to run at the head
--   <tag>:ready           zset    schema -> virtual time; the fair ring: tenants with work
--   <tag>:vtime           hash    schema -> virtual time, kept when a tenant has no work
--   <tag>:ring            string  the ring's own virtual time; it never goes back
--   <tag>:costs           hash    "schema;func" -> expected milliseconds of one run
--   <tag>:leases          zset    id -> deadline in ms
--   <tag>:leased          hash    id -> packed {token, worker, schema, charged ms, alone}
--   <tag>:held:<worker>   zset    ids the worker holds, by token
--   <tag>:starts          hash    id -> runs that ended with their worker's death (0: given back unstarted)
--   <tag>:alone           set     ids to be delivered one at a time
--   <tag>:verdicts        hash    id -> the cause with which it is given up instead of run
--   <tag>:delayed         zset    id -> due time in ms
--   <tag>:dead            zset    id -> when it died, in ms
--   <tag>:causes          hash    id -> why it died
--   <tag>:known           zset    ids of acknowledged packages that must not be enqueued again, by time
--   <tag>:token           string  the last fencing token given
--   <tag>:wake            list    tokens idle workers block on
--   <tag>:expired         string  when the expiry scan last ran, in ms

local tag = KEYS[1]

local function key(name)
  return tag .. ':' .. name
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- schema, func, once, payload of a stored message
local function open_message(message)
  local a = string.find(message, '\n', 1, true)
  local b = string.find(message, '\n', a + 1, true)
  return string.sub(message, 1, a - 1), string.sub(message, a + 1, b - 1),
    string.sub(message, b + 1, b + 1), string.sub(message, b + 3)
end

-- A tenant that becomes busy enters at its own virtual time, or the ring's if that is later: no credit for having
-- been idle, no forgiving of debt.
local function enter_ring(schema)
  if redis.call('ZSCORE', key('ready'), schema) then
    return
  end
  local own = tonumber(redis.call('HGET', key('vtime'), schema) or '0')
  local ring = tonumber(redis.call('GET', key('ring')) or '0')
  local start = math.max(own, ring)
  redis.call('ZADD', key('ready'), start, schema)
  redis.call('HSET', key('vtime'), schema, start)
end

-- Charge a tenant (or refund it, with negative ms) the worker time it uses.
local function charge(schema, ms)
  if ms == 0 then
    return
  end
  redis.call('HINCRBYFLOAT', key('vtime'), schema, ms)
  if redis.call('ZSCORE', key('ready'), schema) then
    redis.call('ZINCRBY', key('ready'), ms, schema)
  end
end

-- Wake as many idle workers as there is new work for. The list stays short: a token too many costs one empty fetch.
local function wake(wanted)
  local room = 64 - redis.call('LLEN', key('wake'))
  for _ = 1, math.min(wanted, room) do
    redis.call('RPUSH', key('wake'), '1')
  end
end

local function push(schema, id, at_head)
  redis.call(at_head and 'LPUSH' or 'RPUSH', key('queue:' .. schema), id)
  enter_ring(schema)
end

-- The lease of an id if the worker holds it with this token, else nil.
local function lease_of(id, token)
  local packed = redis.call('HGET', key('leased'), id)
  if not packed then
    return nil
  end
  local held = cmsgpack.unpack(packed)
  local lease = { token = held[1], worker = held[2], schema = held[3], charged = held[4], alone = held[5] }
  if token and tostring(lease.token) ~= token then
    return nil
  end
  return lease
end

local function drop_lease(id, lease)
  redis.call('ZREM', key('leases'), id)
  redis.call('HDEL', key('leased'), id)
  redis.call('ZREM', key('held:' .. lease.worker), id)
end

-- All that is known of an id but its message and its place.
local function drop_history(id)
  redis.call('HDEL', key('starts'), id)
  redis.call('HDEL', key('verdicts'), id)
  redis.call('SREM', key('alone'), id)
end

-- A leased package that was not run goes back to the head of its queue, and its tenant gets its charge back.
local function return_unrun(id, lease)
  drop_lease(id, lease)
  charge(lease.schema, -lease.charged)
  push(lease.schema, id, true)
end

-- Release a deleted tenant's queue once it is empty: its virtual time, its figures and its name.
--
-- KEYS[1]  the cluster's tag (see common.lua), or the site's
-- ARGV     1 tenant, 2 schema, 3 ms for which nothing more is kept for the tenant
-- Returns  1 if it is released, 0 if something is left in it

write_though_full()
note_deleted(ARGV[1], tonumber(ARGV[3]))
local tenant, queue = ARGV[1], queue_of(ARGV[2], ARGV[1])
if redis.call('HEXISTS', key('queues'), tenant) == 0 then  -- the next tenant may have the name by now
  return 1
end
local is_empty = queued_of(queue) == 0 and delayed_of(queue) == 0
  and redis.call('HLEN', key('running:' .. queue)) == 0 and not redis.call('HGET', key('dead_of'), queue)
  and redis.call('EXISTS', key('kept:' .. queue)) == 0
if not is_empty then
  return 0
end

local figure_bytes = 4 * figure_words
local function clear(figures, at)
  if redis.call('STRLEN', figures) > at * figure_bytes then
    redis.call('SETRANGE', figures, at * figure_bytes, string.rep('\0', figure_bytes))
  end
end

local at = redis.call('HGET', key('figure_places'), queue)
for period = this_period() - kept_periods, this_period() do
  redis.call('HDEL', key('day_busy:' .. period), queue)
end
if at then
  clear(key('figures'), at)
  for period = this_period() - kept_periods, this_period() do
    clear(key('figures:' .. period), at)
  end
  redis.call('HDEL', key('figure_places'), queue)
  redis.call('HSET', key('figure_places'), free_place(at), at)
  redis.call('RPUSH', key('free_places'), at)
end
redis.call('DEL', key('day:' .. queue))
local part = part_of(this_period())
for n = part - day_parts, part do
  redis.call('DEL', key('day_functions:' .. n .. ';' .. queue))
  redis.call('HDEL', key('day_tenants:' .. n), queue)
end
local name = schema_of(queue)
redis.call('HDEL', key('vtime'), queue)
redis.call('HDEL', key('waited'), queue)
redis.call('HDEL', key('queues'), tenant)
redis.call('HDEL', key('queue_owners'), queue)
for _, owner in ipairs(redis.call('HVALS', key('queue_owners'))) do
  if string.match(owner, '\n(.*)$') == name then  -- another tenant has the name
    return 1
  end
end
redis.call('HDEL', key('labels:tenants'), name)
return 1

-- Add the figures of a period that has ended to the day of their tenants and functions.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 the number of the period, 2 how many tenants, then for each of them five: schema or nothing for all
--          together, the element for its day, done, failed, microseconds run; then for each function fifteen: its place,
--          its name, failed, microseconds run, the counts of its runs by their time

write_though_full()
local period, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local part, part_expires = part_of(period)
local expires = string.format('%.0f', (period + day_periods) * period_ms)
part_expires = string.format('%.0f', part_expires)

-- Append to a day, and drop what is older than a day.
local function append(day, element)
  redis.call('RPUSH', day, element)
  local first = redis.call('LINDEX', day, 0)
  while #first < 3 or struct.unpack('>I3', first) <= period - day_periods do
    redis.call('LPOP', day)
    first = redis.call('LINDEX', day, 0)
  end
  redis.call('PEXPIREAT', day, expires)
end

-- Return whether a tenant is there: that nobody has released its queue meanwhile.
local function has_queue(schema)
  return redis.call('HEXISTS', key('figure_places'), schema) == 1 or queued_of(schema) > 0
    or redis.call('EXISTS', key('running:' .. schema)) == 1
end

local tenants = key('day_tenants:' .. part)
for i = 3, 2 + 5 * count, 5 do
  local schema, element = ARGV[i], ARGV[i + 1]
  local done, failed, us = tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), tonumber(ARGV[i + 4])
  if schema == '' then
    append(key('day'), element)
  elseif has_queue(schema) then
    append(key('day:' .. schema), element)
    if done + failed > 0 then
      local kept = redis.call('HGET', tenants, schema)
      local a, b, c = string.match(kept or '', '^(%d+),(%d+),(%d+)$')
      redis.call('HSET', tenants, schema,
        string.format('%.0f,%.0f,%.0f', (a or 0) + done, (b or 0) + failed, (c or 0) + us))
    end
  end
end
redis.call('PEXPIREAT', tenants, part_expires)

local functions = key('day_functions:' .. part)
for i = 3 + 5 * count, #ARGV, 4 + day_places do
  local at, counts = ARGV[i], {}
  for place = 1, day_places do
    counts[place] = tonumber(ARGV[i + 3 + place])
  end
  local kept = redis.call('HGET', functions, at)
  add_runs(functions, at, kept, tonumber(ARGV[i + 2]), tonumber(ARGV[i + 3]), counts)
  keep_day_name(at, ARGV[i + 1], part_expires)
end
redis.call('PEXPIREAT', functions, part_expires)

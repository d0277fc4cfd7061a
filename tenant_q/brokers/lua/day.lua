-- Return the figures of the last day of one tenant.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant
-- Returns  { the number of the present period, <tag>:day:<schema>, the periods that are not recorded yet and the words
--          now (see `unrecorded`), how many packages are queued, the functions (see `functions_of_day`) }

local queue = queue_of(ARGV[1], ARGV[2])
local at = redis.call('HGET', key('figure_places'), queue)
local first = 4 * figure_words * (at or 0)

local periods, now = unrecorded(function(name)
  return at and redis.call('GETRANGE', name, first, first + 4 * figure_words - 1) or ''
end, function(name)
  return tonumber(redis.call('HGET', name, queue) or '0')
end)

return { this_period(), redis.call('LRANGE', key('day:' .. queue), 0, -1), periods, now, queued_of(queue),
  functions_of_day(';' .. queue) }

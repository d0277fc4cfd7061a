-- Return the figures of the last day of one tenant.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 schema, 2 tenant
-- Returns  { the number of the present period, <tag>:day:<schema>, { number, words, ... } of the periods that are not
--          recorded yet and at last { words now }, how many packages are queued, the functions (see day_functions.lua) }

local queue = queue_of(ARGV[1], ARGV[2])
local at = redis.call('HGET', key('figure_places'), queue)

local function own_words(name)
  local first = 4 * figure_words * at
  return redis.call('GETRANGE', name, first, first + 4 * figure_words - 1)
end

return { this_period(), redis.call('LRANGE', key('day:' .. queue), 0, -1), at and unrecorded(own_words) or {},
  queued_of(queue), day_functions(';' .. queue) }

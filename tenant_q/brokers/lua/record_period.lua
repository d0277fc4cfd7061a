-- Choose the first period of five minutes that has ended and is not recorded in the day yet, and note it as recorded: no
-- other call will return it.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  nothing if there is none, else { the number of the period, <tag>:figures when it began and when it ended or
--          nil twice if nothing was done in it, <tag>:figure_places, { schema, how many of its packages are queued, ... }
--          or nil if the period ended a while ago, <tag>:day_busy:<n> }

write_though_full()
local this = this_period()

local function queued_now()
  local found = {}
  for schema, queued in pairs(queued_by_tenant()) do
    if queued > 0 then
      found[#found + 1], found[#found + 2] = schema, queued
    end
  end
  return found
end

for period = first_unrecorded(), this - 1 do
  local before, busy = redis.call('GET', key('figures:' .. period)), key('day_busy:' .. period)
  local is_last = period == this - 1
  if before or is_last or redis.call('EXISTS', busy) == 1 then
    redis.call('SET', key('day_recorded'), period, 'PX', kept_periods * period_ms)
    local after = before and (figures_since(period + 1) or redis.call('GET', key('figures')) or '')
    local samples = redis.call('HGETALL', busy)
    redis.call('DEL', busy)
    return { period, before, after, redis.call('HGETALL', key('figure_places')), is_last and queued_now(), samples }
  end
end
return {}

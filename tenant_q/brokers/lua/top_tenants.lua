-- Return what each tenant did in the last hour or day.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 how many periods of five minutes an hour is, or 0 for the day
-- Returns  { <tag>:figure_places, <tag>:figures, its value an hour ago, or at the end of what is recorded in the day, or
--          nil if nothing was done since, <tag>:queue_owners, <tag>:day_tenants:<n> of the parts of the day }

local hour = tonumber(ARGV[1])
local first, parts = this_period() - hour, {}
if hour == 0 then
  first = first_unrecorded()
  local part = part_of(this_period())
  for n = part - day_parts + 1, part do
    parts[#parts + 1] = redis.call('HGETALL', key('day_tenants:' .. n))
  end
end
return { redis.call('HGETALL', key('figure_places')), redis.call('GET', key('figures')), figures_since(first),
  redis.call('HGETALL', key('queue_owners')), parts }

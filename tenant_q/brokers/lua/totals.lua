-- What was done since the server was new.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  of tenants { { schema, counts of <tag>:figures as text }, ... }, of functions { { func, counts }, ... }

local function totals(name)
  local found, answer = redis.call('HGETALL', key(name)), {}
  for i = 1, #found, 2 do
    answer[#answer + 1] = { found[i], table.concat(cmsgpack.unpack(found[i + 1]), ' ') }
  end
  return answer
end

return { totals('figures'), totals('functions') }

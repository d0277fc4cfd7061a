-- Forget packages whose outcome is saved, learn what they cost, and settle their tenants' accounts.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, 2 ms an acknowledged deterministic id stays known, then for each package three:
--          id, token, ms used
-- Returns  the ids refused, because the token no longer fits

write_though_full()
local remember_ms = tonumber(ARGV[2])
local now = now_ms()
local refused = {}
-- New estimates weigh an eighth, so that one slow run does not send a function into solitude.
local weight = 0.125

for i = 3, #ARGV, 3 do
  local id, token, ms = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local lease = lease_of(id, token)
  if not lease then
    refused[#refused + 1] = id
  else
    local _, func, once = open_message(redis.call('HGET', key('messages'), id))
    charge(lease.schema, virtual(lease.schema, ms) - lease.charged)
    drop_lease(id, lease)
    drop_history(id)
    redis.call('HDEL', key('messages'), id)
    if once == '1' then
      redis.call('ZADD', key('known'), now, id)
    end
    local field = lease.schema .. ';' .. func
    local before = tonumber(redis.call('HGET', key('costs'), field) or ms)
    redis.call('HSET', key('costs'), field, before + weight * (ms - before))
  end
end

if #refused > 0 then
  redis.call('HINCRBY', key('statistics'), 'stale_acks', #refused)
end
redis.call('ZREMRANGEBYSCORE', key('known'), '-inf', now - remember_ms)
return refused

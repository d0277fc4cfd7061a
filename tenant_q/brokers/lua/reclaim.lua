-- Give back the packages of a worker that died. Only the one that it was running is charged a start, or gets the
-- give-up reason.
--
-- A worker that died while it ran nothing may have died of a package that it had finished. Then its packages are
-- delivered one at a time from now on, and one that was delivered alone already is charged.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 worker, 2 the id it was running or '', 3 give-up reason for that id or '',
--          4 whether its death is charged ('1' or '0'): not if it was killed to stop the cluster,
--          5 how it died, in words, or ''
-- Returns  how many were given back

write_though_full()
local worker, running, reason, is_charged, death = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', ARGV[5]
local deaths_ms = 7 * 24 * 3600 * 1000
local ids = redis.call('ZREVRANGE', key('held:' .. worker), 0, -1)
for _, id in ipairs(ids) do
  return_unrun(id, lease_of(id), worker)
  local may_be_cause = id == running and reason == ''
  if running == '' and is_charged then
    may_be_cause = redis.call('SADD', key('alone'), id) == 0
  end
  local is_start_charged = may_be_cause and is_charged
  if redis.call('HEXISTS', key('messages'), id) == 1 then
    redis.call('HINCRBY', key('starts'), id, is_start_charged and 1 or 0)
    if is_start_charged and death ~= '' then
      redis.call('HSET', key('deaths'), id, death)
      redis.call('PEXPIRE', key('deaths'), deaths_ms)
    end
  else  -- it cannot be run
    forget_broken(id)
  end
  if id == running and reason ~= '' and not is_cancelled(id) then
    redis.call('HSET', key('verdicts'), id, reason)
  end
end
wake(#ids)
return #ids

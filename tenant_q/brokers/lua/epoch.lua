-- Raise the epoch, by which a scheduler notices that the server lost data (see `workflows/epoch.py`).
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 the number, 2 the highest number that the server is known to have held; 0 if any will do
-- Returns  the number that is held now, the higher one of both; nil if less than the known one was held, or if it was written
--          by another run of the server: then nothing is written
--
-- A server that was restarted, and a replica that took over, may lack the last writes, and with them the last number. So the
-- number is kept with the id of the server's run, which is new after each start. A user without INFO has no such id.

write_though_full()
local held, wrote = string.match(redis.call('GET', key('epoch')) or '', '^(%d+) ?(%w*)$')
held = tonumber(held)
local number, known = tonumber(ARGV[1]), tonumber(ARGV[2])
local server = redis.pcall('INFO', 'server')
local run = type(server) == 'string' and string.match(server, 'run_id:(%w+)') or ''
local is_other_run = held and wrote ~= '' and run ~= '' and wrote ~= run
if known > 0 and (not held or held < known or is_other_run) then
  return false
end
if not held or held < number or wrote ~= run then
  held = math.max(held or 0, number)
  redis.call('SET', key('epoch'), string.format('%.0f %s', held, run))
end
return string.format('%.0f', held)

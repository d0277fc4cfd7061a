-- Raise the epoch, by which a scheduler notices that the server lost data (see `workflows/epoch.py`).
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- ARGV     1 the number, 2 the highest number that the server is known to have held; 0 if any will do
-- Returns  the number that is held now, the higher one of both; nil if less than the known one was held: then nothing is
--          written

write_though_full()
local held = tonumber(redis.call('GET', key('epoch')) or '')
local number, known = tonumber(ARGV[1]), tonumber(ARGV[2])
if known > 0 and (not held or held < known) then
  return false
end
if not held or held < number then
  held = number
  redis.call('SET', key('epoch'), string.format('%.0f', held))
end
return string.format('%.0f', held)

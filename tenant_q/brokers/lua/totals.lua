-- What was done since the server was new.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  { <tag>:figure_places, <tag>:figures }

return { redis.call('HGETALL', key('figure_places')), redis.call('GET', key('figures')) }

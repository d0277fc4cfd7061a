-- Return what was done since the server was new.
--
-- KEYS[1]  the cluster's tag (see common.lua)
-- Returns  { <tag>:figure_places, <tag>:figures, <tag>:queue_owners }

return { redis.call('HGETALL', key('figure_places')), redis.call('GET', key('figures')),
  redis.call('HGETALL', key('queue_owners')) }

-- Lock runs, in the order of their ids, and read what is needed to advance them.
--
-- {runs}  the schema-qualified table
-- %s      the ids
--
-- The next look is a text, which names its time zone, and may be infinite.
SELECT id, version, state, cluster, error, ended IS NOT NULL, look_at IS NULL OR look_at <= clock_timestamp(),
    config -> 'limits' ->> 'max_items', workflow,
    coalesce(deadline <= clock_timestamp(), false), to_json(look_at) #>> '{{}}'
FROM {runs}
WHERE id = ANY (%s)
ORDER BY id
FOR UPDATE

-- Count the ended items of a step that has no others, and add up the bytes of their outputs.
--
-- {steps}  the schema-qualified table
-- %s       the run and the step
SELECT count(*) FILTER (WHERE state = 'failed'), count(*) FILTER (WHERE state = 'cancelled'),
    coalesce(sum(pg_column_size(output)), 0)::bigint,
    (array_agg(left(error, 500) ORDER BY index) FILTER (WHERE state = 'failed'))[1]
FROM {steps}
WHERE run = %s AND name = %s AND index >= 0

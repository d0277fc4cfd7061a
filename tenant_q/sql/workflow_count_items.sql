-- Count the ended items of a step that has no others, and add up the bytes of their outputs as text. Where they take too many even
-- as PostgreSQL keeps them, compressed, those are the answer, and no output is read.
--
-- {steps}  the schema-qualified table
-- %s       the run and the step, the most bytes, and the run and the step again
WITH counted AS (
    SELECT count(*) FILTER (WHERE state = 'failed') AS failed, count(*) FILTER (WHERE state = 'cancelled') AS cancelled,
        coalesce(sum(pg_column_size(output)), 0)::bigint AS size,
        (array_agg(left(error, 500) ORDER BY index) FILTER (WHERE state = 'failed'))[1] AS first
    FROM {steps}
    WHERE run = %s AND name = %s AND index >= 0
)
SELECT failed, cancelled,
    CASE WHEN size > %s THEN size ELSE (
        SELECT coalesce(sum(octet_length(output::text)), 0)::bigint FROM {steps} WHERE run = %s AND name = %s AND index >= 0
    ) END,
    first
FROM counted

-- The earliest next run among each schema's schedules, in one round trip for many schemas.
--
-- Parameters: the schemas' names; the cluster whose schedules are asked for; whether schedules without a cluster are
-- its too. A schema that is missing, not migrated, locked or broken in whatever way comes with no next run, and costs no
-- other. A moment that a client cannot read (infinity, before the year 1, after 9999) is left out.
CREATE OR REPLACE FUNCTION tenant_q_next_runs(schemas text[], cluster_name text, is_default boolean)
RETURNS TABLE (schema_name text, next_run timestamptz)
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog
SET lock_timeout = '100ms'
AS $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY schemas LOOP
        IF to_regclass(quote_ident(name) || '.django_q_schedule') IS NULL THEN
            schema_name := name;
            next_run := NULL;
            RETURN NEXT;
            CONTINUE;
        END IF;
        BEGIN
            RETURN QUERY EXECUTE format(
                'SELECT %L::text, min(next_run)::timestamptz FROM %I.django_q_schedule '
                'WHERE repeats <> 0 AND next_run BETWEEN ''0001-01-02'' AND ''9999-12-30'' '
                'AND (cluster = $1 OR ($2 AND cluster IS NULL)) '
                'HAVING min(next_run) IS NOT NULL', name, name)
            USING cluster_name, is_default;
        EXCEPTION WHEN OTHERS THEN
            RAISE LOG 'tenant_q: schedules of schema % cannot be read: %', name, SQLERRM;
            schema_name := name;
            next_run := NULL;
            RETURN NEXT;
        END;
    END LOOP;
END
$$

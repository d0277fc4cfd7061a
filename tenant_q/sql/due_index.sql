-- The due index: one row in {public} for each schedule of every tenant that will run again.
--
-- {public}  the public schema
--
-- It is kept by triggers on each tenant's django_q_schedule. Who waits for an entry holds a lock on the schedule it belongs to
-- (a trigger) or on all of that table (an installation), so no two of them wait for each other in a circle; the scheduler,
-- which holds none, skips entries that are locked.

-- What a change of one row means for the index; the row before and after it, null where there is none. A row that is not to
-- run, or whose moment a client cannot read, has no place in the index. Columns are read from JSON, for a plan would keep their
-- types, in every session that has one, when a migration changes them.
CREATE OR REPLACE FUNCTION {public}.tenant_q_index_change(name text, act text, before jsonb, after jsonb) RETURNS void
LANGUAGE plpgsql
AS $$
DECLARE
    number bigint := (after ->> 'id')::bigint;
    served_by text := COALESCE(after ->> 'cluster', '');
    moment timestamptz := (after ->> 'next_run')::timestamptz;
    earliest timestamptz;
BEGIN
    IF act = 'TRUNCATE' THEN
        DELETE FROM {public}.tenant_q_dueschedule WHERE schema_name = name;
        RETURN;
    END IF;
    IF act = 'UPDATE' AND (before -> 'id', before -> 'next_run', before -> 'repeats', before -> 'cluster')
        IS NOT DISTINCT FROM (after -> 'id', after -> 'next_run', after -> 'repeats', after -> 'cluster')
    THEN
        RETURN;
    END IF;
    IF before -> 'id' IS DISTINCT FROM after -> 'id' AND act <> 'INSERT' THEN
        DELETE FROM {public}.tenant_q_dueschedule
        WHERE schema_name = name AND schedule_id = (before ->> 'id')::bigint;
    END IF;
    IF number IS NULL THEN
        RETURN;
    END IF;
    IF moment IS NULL OR (after ->> 'repeats')::bigint = 0 OR moment NOT BETWEEN '0001-01-02' AND '9999-12-30' THEN
        DELETE FROM {public}.tenant_q_dueschedule WHERE schema_name = name AND schedule_id = number;
        RETURN;
    END IF;
    SELECT due INTO earliest FROM {public}.tenant_q_dueschedule
    WHERE cluster = served_by ORDER BY cluster, due LIMIT 1;
    INSERT INTO {public}.tenant_q_dueschedule AS held (schema_name, schedule_id, cluster, next_run, due, held)
    VALUES (name, number, served_by, moment, moment, '')
    ON CONFLICT (schema_name, schedule_id) DO UPDATE
    SET cluster = EXCLUDED.cluster, next_run = EXCLUDED.next_run, due = EXCLUDED.due, held = '';
    IF earliest IS NULL OR moment < earliest THEN
        PERFORM pg_notify('tenant_q_due', served_by);
    END IF;
END
$$;

-- The trigger's function. A session compiles and keeps it once for each table, so it is short. An error would keep a tenant
-- from editing its schedules, so an index that is gone with its app is no error, nor is a column that is gone.
CREATE OR REPLACE FUNCTION {public}.tenant_q_index_schedule() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM {public}.tenant_q_index_change(TG_TABLE_SCHEMA, TG_OP, to_jsonb(OLD), to_jsonb(NEW));
    RETURN NULL;
EXCEPTION WHEN undefined_table OR undefined_column OR undefined_function THEN
    RETURN NULL;
END
$$;

-- Put one schema's schedules into the index: its triggers, if they are missing, and its rows as they are now. The lock that
-- a new trigger takes keeps writers out until the rows are there.
CREATE OR REPLACE FUNCTION {public}.tenant_q_install_index(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tab regclass := to_regclass(quote_ident(name) || '.django_q_schedule');
BEGIN
    IF tab IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', tab);
    -- Replaced rather than dropped, which readers would have to wait for. It names no column: one that a trigger names keeps
    -- its type, so that a migration of Django-Q2's would fail.
    EXECUTE format('CREATE OR REPLACE TRIGGER tenant_q_index_schedule AFTER INSERT OR DELETE OR UPDATE ON %s '
                   'FOR EACH ROW EXECUTE FUNCTION {public}.tenant_q_index_schedule()', tab);
    EXECUTE format('CREATE OR REPLACE TRIGGER tenant_q_index_truncate AFTER TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION {public}.tenant_q_index_schedule()', tab);
    DELETE FROM {public}.tenant_q_dueschedule WHERE schema_name = name;
    EXECUTE format('INSERT INTO {public}.tenant_q_dueschedule (schema_name, schedule_id, cluster, next_run, due, held) '
                   'SELECT %L, id, COALESCE(cluster, ''''), next_run, next_run, '''' FROM %s '
                   'WHERE repeats <> 0 AND next_run BETWEEN ''0001-01-02'' AND ''9999-12-30''', name, tab);
    INSERT INTO {public}.tenant_q_indexedschema AS known (schema_name, table_oid) VALUES (name, tab::oid::bigint)
    ON CONFLICT (schema_name) DO UPDATE SET table_oid = EXCLUDED.table_oid;
    PERFORM pg_notify('tenant_q_due', '');
END
$$;

-- Which schemas the index does not know as they are: new, restored, renamed, without their triggers, or gone. One query over
-- the catalogue.
CREATE OR REPLACE FUNCTION {public}.tenant_q_stale_schemas() RETURNS TABLE (schema_name text, is_gone boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH there AS (
        SELECT space.nspname::text AS name, tab.oid::bigint AS table_oid, (
            SELECT count(*) = 2 FROM pg_trigger
            WHERE tgrelid = tab.oid AND tgname IN ('tenant_q_index_schedule', 'tenant_q_index_truncate')
                AND tgenabled IN ('O', 'A')
        ) AS has_triggers
        FROM pg_class AS tab JOIN pg_namespace AS space ON space.oid = tab.relnamespace
        WHERE tab.relname = 'django_q_schedule' AND tab.relkind IN ('r', 'p')
            AND space.nspname NOT LIKE 'pg\_%'
    )
    SELECT COALESCE(there.name, known.schema_name), there.name IS NULL
    FROM there FULL JOIN {public}.tenant_q_indexedschema AS known ON known.schema_name = there.name
    WHERE there.name IS NULL OR known.schema_name IS NULL OR known.table_oid <> there.table_oid
        OR NOT there.has_triggers
$$;

-- Take a schema that is gone out of the index.
CREATE OR REPLACE FUNCTION {public}.tenant_q_forget_schema(name text) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM {public}.tenant_q_dueschedule WHERE schema_name = name;
    DELETE FROM {public}.tenant_q_indexedschema WHERE schema_name = name;
$$;

-- How many schedules of a schema the index has wrong: missing, there too much, or at another moment.
CREATE OR REPLACE FUNCTION {public}.tenant_q_index_errors(name text) RETURNS bigint
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tab regclass := to_regclass(quote_ident(name) || '.django_q_schedule');
    found bigint;
BEGIN
    IF tab IS NULL THEN
        RETURN (SELECT count(*) FROM {public}.tenant_q_dueschedule WHERE schema_name = name);
    END IF;
    EXECUTE format(
        'SELECT count(*) FROM (SELECT id::bigint AS id, COALESCE(cluster, '''') AS cluster, next_run FROM %s '
        'WHERE repeats <> 0 AND next_run BETWEEN ''0001-01-02'' AND ''9999-12-30'') AS wanted '
        'FULL JOIN (SELECT * FROM {public}.tenant_q_dueschedule WHERE schema_name = %L) AS held '
        'ON held.schedule_id = wanted.id '
        'WHERE wanted.id IS NULL OR held.schedule_id IS NULL OR held.cluster <> wanted.cluster '
        'OR held.next_run <> wanted.next_run', tab, name)
    INTO found;
    RETURN found;
END
$$

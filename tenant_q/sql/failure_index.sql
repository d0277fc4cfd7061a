-- The index of failures: one row in {public} for each failed row of every tenant's task table.
--
-- {public}  the public schema
--
-- It is built as the index of workflow runs is (see run_index.sql and due_index.sql): triggers on each tenant's django_q_task keep it
-- up to date, couple no tenants, and are safe where a hostile role owns the tables. It differs in three ways.
-- - The triggers have conditions, so that a success that is inserted, updated or pruned costs no call of a function. A condition
--   is evaluated with the rights of the role that uses the table. tenant_q_foreign_code() accepts only these three.
-- - A trigger knows no cause: that is in the pickled result. It writes an entry that is pending. The worker adds the cause in the
--   same transaction. The scheduler reads the rows of entries that stay pending: those that somebody else wrote, and those
--   that a SERIALIZABLE transaction left to it. It adds the cause, or removes the entry of a row that is gone.
-- - A task table may be large, so an installation reads no row of it. tenant_q_sweep_failures() adds what the table had before,
--   in portions.
--
-- A transaction that waits for an entry holds a lock on the entry's row in the task table (a trigger, a sweep). Everything else skips
-- entries that are locked, so there is no deadlock.

-- Have the scheduler compare a schema's rows with the index.
CREATE OR REPLACE FUNCTION {public}.tenant_q_doubt_failures(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own text COLLATE "default" := name;
BEGIN
    -- Who holds the lock of this row has the same done: nobody waits for it, so there is no deadlock.
    PERFORM FROM {public}.tenant_q_indexedfailures WHERE schema_name = own AND table_oid > 0 FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE {public}.tenant_q_indexedfailures SET table_oid = -table_oid WHERE schema_name = own AND table_oid > 0;
    END IF;
EXCEPTION
    WHEN serialization_failure THEN  -- it was installed since this transaction's snapshot
        RETURN;
END
$$;

-- Change the index after a change of one row, or of all rows if `act` is TRUNCATE. `before` and `after` are the row before and
-- after: id, success, func, attempt_count and stopped, or empty values if there is none. Nothing is written for a table that was
-- not put into the index under its own name.
CREATE OR REPLACE FUNCTION {public}.tenant_q_failure_change(
    name text, tab oid, argument text, act text, before text[], after text[]
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- While statistics say that the tables are empty, a plan would scan all of them for each row.
SET enable_seqscan = off
AS $$
DECLARE
    -- TG_TABLE_SCHEMA has the collation "C", but the indexes have the default one.
    own text COLLATE "default" := name;
    former text COLLATE "default" := before[1];
    moment timestamptz;
BEGIN
    IF act = 'UPDATE' AND before = after THEN
        RETURN;
    END IF;
    -- A transaction with a snapshot of before the table was put into the index cannot see that it is there. In such a one the
    -- trigger's argument, which only who may execute its function can have written, says so.
    IF NOT EXISTS (
        SELECT FROM {public}.tenant_q_indexedfailures AS known
        WHERE known.schema_name = own AND abs(known.table_oid) IN (tab::bigint, pg_partition_root(tab)::oid::bigint)
    ) AND (
        argument IS DISTINCT FROM name OR tab IS DISTINCT FROM to_regclass(quote_ident(name) || '.django_q_task')
        OR current_setting('transaction_isolation') = 'read committed'
    ) THEN
        RETURN;
    END IF;
    IF act = 'TRUNCATE' THEN
        IF current_setting('transaction_isolation') = 'serializable' THEN
            PERFORM {public}.tenant_q_doubt_failures(name);
        ELSE
            DELETE FROM {public}.tenant_q_failure WHERE schema_name = own;
        END IF;
        RETURN;
    END IF;
    IF act <> 'INSERT' AND before[2] = 'f' AND (act = 'DELETE' OR after[1] <> former OR after[2] <> 'f') THEN
        IF current_setting('transaction_isolation') = 'serializable' THEN
            -- A removal reads a page of the index that other tenants write to.
            INSERT INTO {public}.tenant_q_failure AS held
                (schema_name, task_id, func, cause, schedule, attempts, stopped, again, is_pending)
            VALUES (own, former, '', '', '', 0, now(), '', true)
            ON CONFLICT (schema_name, task_id) DO UPDATE SET is_pending = true;
        ELSE
            DELETE FROM {public}.tenant_q_failure WHERE schema_name = own AND task_id = former;
        END IF;
    END IF;
    IF act = 'DELETE' OR after[2] <> 'f' THEN
        RETURN;
    END IF;
    moment := NULLIF(after[5], '')::timestamptz;
    IF moment IS NULL OR moment NOT BETWEEN '0001-01-02' AND '9999-12-30' THEN  -- a client cannot read it
        moment := now();
    END IF;
    INSERT INTO {public}.tenant_q_failure AS held
        (schema_name, task_id, func, cause, schedule, attempts, stopped, again, is_pending)
    VALUES (
        own, after[1], left(after[3], 256), '', '', COALESCE(NULLIF(after[4], '')::integer, 0), moment, '', true
    )
    ON CONFLICT (schema_name, task_id) DO UPDATE SET
        func = EXCLUDED.func, cause = '', schedule = '', attempts = EXCLUDED.attempts, stopped = EXCLUDED.stopped,
        again = '', is_pending = true;
END
$$;

-- The trigger's function. A session compiles it once for each table and keeps a plan of each expression that was used. Therefore
-- it usually makes one call, and an error shows that a rare case applies.
--
-- An error would keep a tenant from its tasks. Therefore it ignores an index that is gone with its app, a column that is gone, and
-- a value that cannot be read.
CREATE OR REPLACE FUNCTION {public}.tenant_q_index_failure() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
AS $$
BEGIN
    -- format() calls output functions, whatever the types are.
    PERFORM {public}.tenant_q_failure_change(
        TG_TABLE_SCHEMA, TG_RELID, TG_ARGV[0], TG_OP,
        ARRAY[format('%s', OLD.id), format('%s', OLD.success), format('%s', OLD.func), format('%s', OLD.attempt_count),
              format('%s', OLD.stopped)],
        ARRAY[format('%s', NEW.id), format('%s', NEW.success), format('%s', NEW.func), format('%s', NEW.attempt_count),
              format('%s', NEW.stopped)]
    );
    RETURN NULL;
EXCEPTION
    WHEN datatype_mismatch OR object_not_in_prerequisite_state THEN
        BEGIN
            IF TG_OP = 'TRUNCATE' THEN  -- there is no row
                PERFORM {public}.tenant_q_failure_change(TG_TABLE_SCHEMA, TG_RELID, TG_ARGV[0], TG_OP, NULL, NULL);
            ELSE
                -- The plan above keeps the columns' types, and a migration has changed one since this session made it.
                EXECUTE format(
                    'SELECT {public}.tenant_q_failure_change(%L, %L, %L, %L, '
                    'ARRAY[format(''%%s'', ($1).id), format(''%%s'', ($1).success), format(''%%s'', ($1).func), '
                    'format(''%%s'', ($1).attempt_count), format(''%%s'', ($1).stopped)], '
                    'ARRAY[format(''%%s'', ($2).id), format(''%%s'', ($2).success), format(''%%s'', ($2).func), '
                    'format(''%%s'', ($2).attempt_count), format(''%%s'', ($2).stopped)])',
                    TG_TABLE_SCHEMA, TG_RELID, TG_ARGV[0], TG_OP
                ) USING OLD, NEW;
            END IF;
            RETURN NULL;
        EXCEPTION
            WHEN serialization_failure THEN
                PERFORM {public}.tenant_q_doubt_failures(TG_TABLE_SCHEMA);
                RETURN NULL;
            WHEN undefined_table OR undefined_column OR undefined_function OR data_exception OR not_null_violation THEN
                RETURN NULL;
        END;
    WHEN serialization_failure THEN
        -- The scheduler has written to the entry since this transaction's snapshot.
        PERFORM {public}.tenant_q_doubt_failures(TG_TABLE_SCHEMA);
        RETURN NULL;
    WHEN undefined_table OR undefined_column OR undefined_function OR data_exception OR not_null_violation THEN
        RETURN NULL;
END
$$;

-- Put the triggers on one schema's table, if they are missing. The role that executes it also needs EXECUTE on the trigger's
-- function and TRIGGER on the table.
CREATE OR REPLACE FUNCTION {public}.tenant_q_install_failure_triggers(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tab regclass := to_regclass(quote_ident(name) || '.django_q_task');
    events text[];
BEGIN
    IF tab IS NULL OR 4 = (
        SELECT count(*) FROM pg_trigger
        WHERE tgrelid = tab AND tgname IN (
            'tenant_q_failure_added', 'tenant_q_failure_changed', 'tenant_q_failure_gone', 'tenant_q_failures_truncated'
        ) AND tgenabled IN ('O', 'A') AND tgfoid = '{public}.tenant_q_index_failure()'::regprocedure
    ) THEN
        RETURN;
    END IF;
    FOREACH events SLICE 1 IN ARRAY ARRAY[
        ['tenant_q_failure_added', 'INSERT', 'ROW WHEN (NOT NEW.success)'],
        ['tenant_q_failure_changed', 'UPDATE', 'ROW WHEN (NOT OLD.success OR NOT NEW.success)'],
        ['tenant_q_failure_gone', 'DELETE', 'ROW WHEN (NOT OLD.success)'],
        ['tenant_q_failures_truncated', 'TRUNCATE', 'STATEMENT']
    ] LOOP
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER %I AFTER %s ON %s FOR EACH %s EXECUTE FUNCTION {public}.tenant_q_index_failure(%L)',
            events[1], events[2], tab, events[3], name
        );
    END LOOP;
END
$$;

-- Put one schema's failures into the index: create its triggers, if they are missing, and have the scheduler compare its rows. The
-- entries of a table that was renamed with its schema move with it; those of another table of this name are removed.
CREATE OR REPLACE FUNCTION {public}.tenant_q_install_failures(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own text COLLATE "default" := name;
    tab regclass := to_regclass(quote_ident(name) || '.django_q_task');
    was text;
BEGIN
    IF tab IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', tab);
    PERFORM {public}.tenant_q_require_plain(ARRAY[name], ARRAY['django_q_task']);
    PERFORM {public}.tenant_q_install_failure_triggers(name);
    IF NOT EXISTS (
        SELECT FROM {public}.tenant_q_indexedfailures WHERE schema_name = own AND abs(table_oid) = tab::oid::bigint
    ) THEN
        DELETE FROM {public}.tenant_q_failure WHERE schema_name = own;
        DELETE FROM {public}.tenant_q_indexedfailures WHERE abs(table_oid) = tab::oid::bigint RETURNING schema_name INTO was;
        IF was IS NOT NULL THEN
            UPDATE {public}.tenant_q_failure SET schema_name = own WHERE schema_name = was;
        END IF;
    END IF;
    -- A row may have gone, or have become a success.
    UPDATE {public}.tenant_q_failure SET is_pending = true WHERE schema_name = own AND NOT is_pending;
    INSERT INTO {public}.tenant_q_indexedfailures AS known (schema_name, table_oid, swept)
    VALUES (own, tab::oid::bigint, '')
    ON CONFLICT (schema_name) DO UPDATE SET table_oid = EXCLUDED.table_oid, swept = '';
END
$$;

-- Compare the next rows of a schema's task table with the index, and add pending entries for failures that are not in it. The rows
-- are locked, so that none is deleted or becomes a success before its entry is there. The caller has a lock_timeout below the
-- server's deadlock_timeout, so that in a deadlock over rows it gives up before the tenant. Returns whether rows are left.
CREATE OR REPLACE FUNCTION {public}.tenant_q_sweep_failures(name text, portion integer) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own text COLLATE "default" := name;
    tab regclass := to_regclass(quote_ident(name) || '.django_q_task');
    place text;
    rows bigint;
BEGIN
    IF tab IS NULL OR NOT EXISTS (
        SELECT FROM {public}.tenant_q_indexedfailures WHERE schema_name = own AND swept IS NOT NULL
    ) THEN
        RETURN false;
    END IF;
    PERFORM {public}.tenant_q_require_plain(ARRAY[name], ARRAY['django_q_task']);
    SELECT swept INTO place FROM {public}.tenant_q_indexedfailures
    WHERE schema_name = own AND swept IS NOT NULL FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN  -- another scheduler sweeps it
        RETURN false;
    END IF;
    EXECUTE format(
        'WITH portion AS MATERIALIZED (SELECT id, success FROM %1$s WHERE id > $1 ORDER BY id LIMIT $2), '
        'failed AS MATERIALIZED (SELECT id, func, attempt_count, stopped FROM %1$s '
        'WHERE id = ANY (ARRAY(SELECT id FROM portion WHERE NOT success)) AND NOT success FOR SHARE), '
        'added AS (INSERT INTO {public}.tenant_q_failure AS held '
        '(schema_name, task_id, func, cause, schedule, attempts, stopped, again, is_pending) '
        'SELECT $3, id, left(func, 256), '''', '''', attempt_count, '
        'CASE WHEN stopped BETWEEN ''0001-01-02'' AND ''9999-12-30'' THEN stopped ELSE now() END, '''', true '
        'FROM failed ON CONFLICT (schema_name, task_id) DO UPDATE SET func = EXCLUDED.func, cause = '''', schedule = '''', '
        'attempts = EXCLUDED.attempts, stopped = EXCLUDED.stopped, again = '''', is_pending = true '
        'WHERE held.stopped <> EXCLUDED.stopped) '
        'SELECT count(*), max(id) FROM portion', tab
    ) INTO rows, place USING place, portion, own;
    UPDATE {public}.tenant_q_indexedfailures SET swept = CASE WHEN rows = portion THEN place END WHERE schema_name = own;
    RETURN rows = portion;
END
$$;

-- Find the schemas that differ from the index: new, restored, renamed, without their triggers, in doubt, or dropped, even if only
-- their entries are left. One query over the catalogue. The caller finds out whether a new schema belongs to a tenant.
CREATE OR REPLACE FUNCTION {public}.tenant_q_stale_failure_schemas() RETURNS TABLE (schema_name text, is_gone boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE there AS (
        SELECT space.nspname::text AS name, tab.oid::bigint AS table_oid, (
            SELECT count(*) = 4 FROM pg_trigger
            WHERE tgrelid = tab.oid AND tgname IN (
                'tenant_q_failure_added', 'tenant_q_failure_changed', 'tenant_q_failure_gone', 'tenant_q_failures_truncated'
            ) AND tgenabled IN ('O', 'A') AND tgfoid = ours.id
        ) AS has_triggers
        FROM pg_class AS tab JOIN pg_namespace AS space ON space.oid = tab.relnamespace
        CROSS JOIN (SELECT to_regprocedure('{public}.tenant_q_index_failure()')::oid AS id) AS ours
        WHERE tab.relname = 'django_q_task' AND tab.relkind IN ('r', 'p')
            AND space.nspname NOT LIKE 'pg\_%'
    ), named AS (
        -- One step in the index for each schema.
        (SELECT entry.schema_name FROM {public}.tenant_q_failure AS entry ORDER BY entry.schema_name LIMIT 1)
        UNION ALL
        SELECT (
            SELECT entry.schema_name FROM {public}.tenant_q_failure AS entry
            WHERE entry.schema_name > named.schema_name ORDER BY entry.schema_name LIMIT 1
        ) FROM named WHERE named.schema_name IS NOT NULL
    )
    SELECT COALESCE(there.name, known.schema_name), there.name IS NULL
    FROM there FULL JOIN {public}.tenant_q_indexedfailures AS known ON known.schema_name = there.name
    WHERE there.name IS NULL OR known.schema_name IS NULL OR known.table_oid <> there.table_oid
        OR NOT there.has_triggers
    UNION
    SELECT named.schema_name, true FROM named
    WHERE named.schema_name IS NOT NULL AND named.schema_name NOT IN (SELECT there.name FROM there)
        AND named.schema_name NOT IN (SELECT known.schema_name FROM {public}.tenant_q_indexedfailures AS known)
$$;

-- Take a schema that is gone, or no tenant's, out of the index.
CREATE OR REPLACE FUNCTION {public}.tenant_q_forget_failures(name text) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM {public}.tenant_q_failure WHERE schema_name = name;
    DELETE FROM {public}.tenant_q_indexedfailures WHERE schema_name = name;
$$;

-- Return the number of entries of a schema that are wrong: no failed row of the task table has such an id and such an end. A failure
-- that is missing in the index is found by a sweep, since counting them reads the whole table.
CREATE OR REPLACE FUNCTION {public}.tenant_q_failure_errors(name text) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tab regclass := to_regclass(quote_ident(name) || '.django_q_task');
    found bigint;
BEGIN
    IF tab IS NULL THEN
        RETURN (SELECT count(*) FROM {public}.tenant_q_failure WHERE schema_name = name);
    END IF;
    PERFORM {public}.tenant_q_require_plain(ARRAY[name], ARRAY['django_q_task']);
    EXECUTE format(
        'SELECT count(*) FROM {public}.tenant_q_failure AS held LEFT JOIN %s AS task ON task.id = held.task_id '
        'WHERE held.schema_name = %L AND NOT held.is_pending '
        'AND (task.id IS NULL OR task.success OR task.stopped <> held.stopped AND isfinite(task.stopped))', tab, name)
    INTO found;
    RETURN found;
END
$$;

-- Only the owner and the roles that may write to the indexes may execute the functions, such as the role of a cluster. A role that
-- migrates tenants also needs the trigger's function, which only an operator can grant.
REVOKE ALL ON FUNCTION
    {public}.tenant_q_index_failure(), {public}.tenant_q_failure_change(text, oid, text, text, text[], text[]),
    {public}.tenant_q_doubt_failures(text), {public}.tenant_q_install_failure_triggers(text),
    {public}.tenant_q_install_failures(text), {public}.tenant_q_sweep_failures(text, integer),
    {public}.tenant_q_stale_failure_schemas(), {public}.tenant_q_forget_failures(text), {public}.tenant_q_failure_errors(text)
FROM PUBLIC;
DO $$
DECLARE
    writer text;
BEGIN
    FOR writer IN
        SELECT DISTINCT acl.grantee::pg_catalog.regrole::pg_catalog.text
        FROM pg_catalog.pg_class AS tab, pg_catalog.aclexplode(tab.relacl) AS acl
        WHERE tab.oid IN (
            '{public}.tenant_q_dueschedule'::pg_catalog.regclass, '{public}.tenant_q_failure'::pg_catalog.regclass
        ) AND acl.privilege_type = 'INSERT' AND acl.grantee <> 0 AND acl.grantee <> tab.relowner
    LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION '
            '{public}.tenant_q_install_failure_triggers(text), {public}.tenant_q_install_failures(text), '
            '{public}.tenant_q_sweep_failures(text, integer), '
            '{public}.tenant_q_stale_failure_schemas(), {public}.tenant_q_forget_failures(text), '
            '{public}.tenant_q_failure_errors(text) TO ' || writer;
    END LOOP;
END
$$

-- The due index of workflow runs: one row in {public} for each run of every tenant, with the moment of its next look.
--
-- {public}  the public schema
--
-- It is built as the index of schedules is (see due_index.sql): triggers on each tenant's tenant_q_workflows_run keep it up to
-- date, couple no tenants, and are safe where a hostile role owns the tables. It differs in two ways.
-- - Nothing is notified. A run is started by who commits it; the scheduler, which reads the index each second while runs are
--   open, is the second chance.
-- - A SERIALIZABLE transaction must not read entries. Therefore it lets the entry of a run that is gone become due instead of
--   removing it. The scheduler finds no such run, and removes the entry.
--
-- What a trigger cannot write it leaves to the scheduler: it makes the OID of the table in tenant_q_indexedruns negative. The table
-- stays in the index, and counts as stale. The scheduler installs it again, which writes all its entries anew.

-- Have the scheduler write a schema's entries anew.
CREATE OR REPLACE FUNCTION {public}.tenant_q_doubt_runs(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own text COLLATE "default" := name;
BEGIN
    -- Who holds the lock of this row has the same done: nobody waits for it, so there is no deadlock.
    PERFORM FROM {public}.tenant_q_indexedruns WHERE schema_name = own AND table_oid > 0 FOR UPDATE SKIP LOCKED;
    IF FOUND THEN
        UPDATE {public}.tenant_q_indexedruns SET table_oid = -table_oid WHERE schema_name = own AND table_oid > 0;
    END IF;
EXCEPTION
    WHEN serialization_failure THEN  -- it was installed since this transaction's snapshot
        RETURN;
END
$$;

-- Change the index after a change of one row, or of all rows if `act` is TRUNCATE. `before` and `after` are the row before and
-- after: id, state, look_at, cluster and ended, or empty values if there is none. A run whose last step is not over counts as
-- running. Nothing is written for a table that was not put into
-- the index under its own name.
CREATE OR REPLACE FUNCTION {public}.tenant_q_run_change(
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
        SELECT FROM {public}.tenant_q_indexedruns AS known
        WHERE known.schema_name = own AND abs(known.table_oid) IN (tab::bigint, pg_partition_root(tab)::oid::bigint)
    ) AND (
        argument IS DISTINCT FROM name OR tab IS DISTINCT FROM to_regclass(quote_ident(name) || '.tenant_q_workflows_run')
        OR current_setting('transaction_isolation') = 'read committed'
    ) THEN
        RETURN;
    END IF;
    IF act = 'TRUNCATE' THEN
        IF current_setting('transaction_isolation') = 'serializable' THEN
            PERFORM {public}.tenant_q_doubt_runs(name);
        ELSE
            DELETE FROM {public}.tenant_q_dueworkflow WHERE schema_name = own;
        END IF;
        RETURN;
    END IF;
    IF act <> 'INSERT' AND after[1] <> former THEN
        IF current_setting('transaction_isolation') = 'serializable' THEN
            INSERT INTO {public}.tenant_q_dueworkflow AS held (schema_name, run, cluster, state, due)
            VALUES (own, former, before[4], before[2], now())
            ON CONFLICT (schema_name, run) DO UPDATE SET due = EXCLUDED.due;
        ELSE
            DELETE FROM {public}.tenant_q_dueworkflow WHERE schema_name = own AND run = former;
        END IF;
    END IF;
    IF after[1] = '' THEN
        RETURN;
    END IF;
    moment := NULLIF(after[3], '')::timestamptz;
    IF moment NOT BETWEEN '0001-01-02' AND '9999-12-30' THEN  -- a client cannot read it
        moment := NULL;
    END IF;
    INSERT INTO {public}.tenant_q_dueworkflow AS held (schema_name, run, cluster, state, due, look_at)
    VALUES (
        own, after[1], after[4],
        CASE WHEN after[5] = '' AND after[2] IN ('succeeded', 'failed', 'cancelled') THEN 'running' ELSE after[2] END,
        moment, moment
    )
    ON CONFLICT (schema_name, run) DO UPDATE
    SET cluster = EXCLUDED.cluster, state = EXCLUDED.state, due = EXCLUDED.due, look_at = EXCLUDED.look_at;
END
$$;

-- The trigger's function. A session compiles it once for each table and keeps a plan of each expression that was used. Therefore
-- it usually makes one call, and an error shows that a rare case applies.
--
-- An error would keep a tenant from its runs. Therefore it ignores an index that is gone with its app, a column that is gone, and
-- a value that cannot be read.
CREATE OR REPLACE FUNCTION {public}.tenant_q_index_run() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
AS $$
BEGIN
    -- format() calls output functions, whatever the types are.
    PERFORM {public}.tenant_q_run_change(
        TG_TABLE_SCHEMA, TG_RELID, TG_ARGV[0], TG_OP,
        ARRAY[format('%s', OLD.id), format('%s', OLD.state), format('%s', OLD.look_at), format('%s', OLD.cluster),
              format('%s', OLD.ended)],
        ARRAY[format('%s', NEW.id), format('%s', NEW.state), format('%s', NEW.look_at), format('%s', NEW.cluster),
              format('%s', NEW.ended)]
    );
    RETURN NULL;
EXCEPTION
    WHEN datatype_mismatch OR object_not_in_prerequisite_state THEN
        BEGIN
            IF TG_OP = 'TRUNCATE' THEN  -- there is no row
                PERFORM {public}.tenant_q_run_change(TG_TABLE_SCHEMA, TG_RELID, TG_ARGV[0], TG_OP, NULL, NULL);
            ELSE
                -- The plan above keeps the columns' types, and a migration has changed one since this session made it.
                EXECUTE format(
                    'SELECT {public}.tenant_q_run_change(%L, %L, %L, %L, '
                    'ARRAY[format(''%%s'', ($1).id), format(''%%s'', ($1).state), format(''%%s'', ($1).look_at), '
                    'format(''%%s'', ($1).cluster), format(''%%s'', ($1).ended)], '
                    'ARRAY[format(''%%s'', ($2).id), format(''%%s'', ($2).state), format(''%%s'', ($2).look_at), '
                    'format(''%%s'', ($2).cluster), format(''%%s'', ($2).ended)])', TG_TABLE_SCHEMA, TG_RELID, TG_ARGV[0], TG_OP
                ) USING OLD, NEW;
            END IF;
            RETURN NULL;
        EXCEPTION
            WHEN serialization_failure THEN
                PERFORM {public}.tenant_q_doubt_runs(TG_TABLE_SCHEMA);
                RETURN NULL;
            WHEN undefined_table OR undefined_column OR undefined_function OR data_exception OR not_null_violation THEN
                RETURN NULL;
        END;
    WHEN serialization_failure THEN
        -- The scheduler has written to the entry since this transaction's snapshot.
        PERFORM {public}.tenant_q_doubt_runs(TG_TABLE_SCHEMA);
        RETURN NULL;
    WHEN undefined_table OR undefined_column OR undefined_function OR data_exception OR not_null_violation THEN
        RETURN NULL;
END
$$;

-- Put the triggers on one schema's table, if they are missing. The role that executes it also needs EXECUTE on the trigger's
-- function and TRIGGER on the table.
CREATE OR REPLACE FUNCTION {public}.tenant_q_install_run_triggers(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tab regclass := to_regclass(quote_ident(name) || '.tenant_q_workflows_run');
BEGIN
    IF tab IS NULL OR 2 = (
        SELECT count(*) FROM pg_trigger
        WHERE tgrelid = tab AND tgname IN ('tenant_q_index_run', 'tenant_q_index_truncate')
            AND tgenabled IN ('O', 'A') AND tgfoid = '{public}.tenant_q_index_run()'::regprocedure
    ) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE OR REPLACE TRIGGER tenant_q_index_run AFTER INSERT OR DELETE OR UPDATE ON %s '
                   'FOR EACH ROW EXECUTE FUNCTION {public}.tenant_q_index_run(%L)', tab, name);
    EXECUTE format('CREATE OR REPLACE TRIGGER tenant_q_index_truncate AFTER TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION {public}.tenant_q_index_run(%L)', tab, name);
END
$$;

-- Put one schema's runs into the index: create its triggers, if they are missing, and write its rows as they are now. The lock that
-- a new trigger takes keeps writers out until the entries are written.
CREATE OR REPLACE FUNCTION {public}.tenant_q_install_runs(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tab regclass := to_regclass(quote_ident(name) || '.tenant_q_workflows_run');
BEGIN
    IF tab IS NULL THEN
        RETURN;
    END IF;
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', tab);
    PERFORM {public}.tenant_q_require_plain(ARRAY[name], ARRAY['tenant_q_workflows_run']);
    PERFORM {public}.tenant_q_install_run_triggers(name);
    DELETE FROM {public}.tenant_q_dueworkflow WHERE schema_name = name;
    EXECUTE format('INSERT INTO {public}.tenant_q_dueworkflow (schema_name, run, cluster, state, due, look_at) '
                   'SELECT %L, id, COALESCE(cluster, ''''), '
                   'CASE WHEN ended IS NULL AND state IN (''succeeded'', ''failed'', ''cancelled'') '
                   'THEN ''running'' ELSE COALESCE(state, '''') END, look.moment, look.moment FROM %s, LATERAL ('
                   'SELECT CASE WHEN look_at BETWEEN ''0001-01-02'' AND ''9999-12-30'' THEN look_at END AS moment) AS look',
                   name, tab);
    INSERT INTO {public}.tenant_q_indexedruns AS known (schema_name, table_oid) VALUES (name, tab::oid::bigint)
    ON CONFLICT (schema_name) DO UPDATE SET table_oid = EXCLUDED.table_oid;
END
$$;

-- Find the schemas that differ from the index: new, restored, renamed, without their triggers, in doubt, or dropped, even if only
-- their entries are left. One query over the catalogue. The caller finds out whether a new schema belongs to a tenant.
CREATE OR REPLACE FUNCTION {public}.tenant_q_stale_run_schemas() RETURNS TABLE (schema_name text, is_gone boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE there AS (
        SELECT space.nspname::text AS name, tab.oid::bigint AS table_oid, (
            SELECT count(*) = 2 FROM pg_trigger
            WHERE tgrelid = tab.oid AND tgname IN ('tenant_q_index_run', 'tenant_q_index_truncate')
                AND tgenabled IN ('O', 'A') AND tgfoid = ours.id
        ) AS has_triggers
        FROM pg_class AS tab JOIN pg_namespace AS space ON space.oid = tab.relnamespace
        CROSS JOIN (SELECT to_regprocedure('{public}.tenant_q_index_run()')::oid AS id) AS ours
        WHERE tab.relname = 'tenant_q_workflows_run' AND tab.relkind IN ('r', 'p')
            AND space.nspname NOT LIKE 'pg\_%'
    ), named AS (
        -- One step in the index for each schema.
        (SELECT entry.schema_name FROM {public}.tenant_q_dueworkflow AS entry ORDER BY entry.schema_name LIMIT 1)
        UNION ALL
        SELECT (
            SELECT entry.schema_name FROM {public}.tenant_q_dueworkflow AS entry
            WHERE entry.schema_name > named.schema_name ORDER BY entry.schema_name LIMIT 1
        ) FROM named WHERE named.schema_name IS NOT NULL
    )
    SELECT COALESCE(there.name, known.schema_name), there.name IS NULL
    FROM there FULL JOIN {public}.tenant_q_indexedruns AS known ON known.schema_name = there.name
    WHERE there.name IS NULL OR known.schema_name IS NULL OR known.table_oid <> there.table_oid
        OR NOT there.has_triggers
    UNION
    SELECT named.schema_name, true FROM named
    WHERE named.schema_name IS NOT NULL AND named.schema_name NOT IN (SELECT there.name FROM there)
        AND named.schema_name NOT IN (SELECT known.schema_name FROM {public}.tenant_q_indexedruns AS known)
$$;

-- Take a schema that is gone, or no tenant's, out of the index.
CREATE OR REPLACE FUNCTION {public}.tenant_q_forget_runs(name text) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM {public}.tenant_q_dueworkflow WHERE schema_name = name;
    DELETE FROM {public}.tenant_q_indexedruns WHERE schema_name = name;
$$;

-- Return the number of runs of a schema that are wrong in the index: missing, superfluous, or different. An entry may be due at
-- another moment than the row says: a scheduler holds it, or made it due because the broker lost data.
CREATE OR REPLACE FUNCTION {public}.tenant_q_run_errors(name text) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tab regclass := to_regclass(quote_ident(name) || '.tenant_q_workflows_run');
    found bigint;
BEGIN
    IF tab IS NULL THEN
        RETURN (SELECT count(*) FROM {public}.tenant_q_dueworkflow WHERE schema_name = name);
    END IF;
    PERFORM {public}.tenant_q_require_plain(ARRAY[name], ARRAY['tenant_q_workflows_run']);
    EXECUTE format(
        'SELECT count(*) FROM (SELECT id, COALESCE(cluster, '''') AS cluster, '
        'CASE WHEN ended IS NULL AND state IN (''succeeded'', ''failed'', ''cancelled'') '
        'THEN ''running'' ELSE COALESCE(state, '''') END AS state, '
        'CASE WHEN look_at BETWEEN ''0001-01-02'' AND ''9999-12-30'' THEN look_at END AS look_at FROM %s) AS wanted '
        'FULL JOIN (SELECT * FROM {public}.tenant_q_dueworkflow WHERE schema_name = %L) AS held '
        'ON held.run = wanted.id '
        'WHERE wanted.id IS NULL OR held.run IS NULL OR held.cluster <> wanted.cluster OR held.state <> wanted.state '
        'OR held.look_at IS DISTINCT FROM wanted.look_at OR held.due IS NULL AND held.look_at IS NOT NULL', tab, name)
    INTO found;
    RETURN found;
END
$$;

-- Only the owner and the roles that may write to the indexes may execute the functions, such as the role of a cluster. A role that
-- migrates tenants also needs the trigger's function, which only an operator can grant.
REVOKE ALL ON FUNCTION
    {public}.tenant_q_index_run(), {public}.tenant_q_run_change(text, oid, text, text, text[], text[]),
    {public}.tenant_q_doubt_runs(text), {public}.tenant_q_install_run_triggers(text), {public}.tenant_q_install_runs(text),
    {public}.tenant_q_stale_run_schemas(), {public}.tenant_q_forget_runs(text), {public}.tenant_q_run_errors(text)
FROM PUBLIC;
DO $$
DECLARE
    writer text;
BEGIN
    FOR writer IN
        SELECT DISTINCT acl.grantee::pg_catalog.regrole::pg_catalog.text
        FROM pg_catalog.pg_class AS tab, pg_catalog.aclexplode(tab.relacl) AS acl
        WHERE tab.oid IN (
            '{public}.tenant_q_dueschedule'::pg_catalog.regclass, '{public}.tenant_q_dueworkflow'::pg_catalog.regclass
        ) AND acl.privilege_type = 'INSERT' AND acl.grantee <> 0 AND acl.grantee <> tab.relowner
    LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION '
            '{public}.tenant_q_install_run_triggers(text), {public}.tenant_q_install_runs(text), '
            '{public}.tenant_q_stale_run_schemas(), {public}.tenant_q_forget_runs(text), '
            '{public}.tenant_q_run_errors(text) TO ' || writer;
    END LOOP;
END
$$

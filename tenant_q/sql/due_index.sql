-- The due index: one row in {public} for each schedule of every tenant that will run again.
--
-- {public}   the public schema
-- {foreign}  the expression of is_foreign.sql, over the parameter `name`
--
-- Triggers on each tenant's django_q_schedule keep it up to date. A transaction that waits for an entry holds a lock on the
-- entry's schedule (a trigger) or on that whole table (an installation), so there is no deadlock between them. The scheduler
-- holds no such lock and skips entries that are locked.
--
-- A trigger neither reads nor writes entries of another tenant, so transactions of two tenants never conflict. In SERIALIZABLE
-- it must not even read a page of an index to which others write. There it only writes entries, leaves their removal to the
-- scheduler, and notifies it of the schema on the channel tenant_q_unsure. The scheduler compares the schema with the index. The
-- trigger does the same if a transaction with an old snapshot meets an entry that the scheduler has written since.
--
-- The tables may belong to a hostile role, such as a tenant's own. Therefore:
-- - PUBLIC may not execute any function: a role that may execute the trigger's function can put it on any of its tables.
-- - Each function only finds objects in pg_catalog, unless their names are qualified with a schema.
-- - The trigger's function runs with its owner's rights. It reads a tenant's values only through the output functions of their
--   types, which belong to PostgreSQL even for types that a role can make. Casts and operators may be code of the role.
-- - The other functions run with the caller's rights, and refuse tables that would run code of another role with them.

-- Change the index after a change of one row, or of all rows if `act` is TRUNCATE. `old_row` and `new_row` are the row before and
-- after: id, next run, repeats and cluster, separated by |, or empty if there is none. A row that will not run, or whose moment a
-- client cannot read, has no entry. Nothing is written for a table that was not put into the index under its own name.
--
-- A scheduler reads the index at least twice a minute. A trigger therefore only notifies it of a run that is earlier than the
-- entry said, and within the hour, because a transaction may stay open for long. Transactions that notify commit one after another.
CREATE OR REPLACE FUNCTION {public}.tenant_q_index_change(
    name text, tab oid, argument text, act text, old_row text, new_row text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
-- While statistics say that the tables are empty, a plan would scan all of them for each row.
SET enable_seqscan = off
AS $$
DECLARE
    -- TG_TABLE_SCHEMA has the collation "C", but the indexes have the default one.
    own text COLLATE "default" := name;
    before text[] := string_to_array(old_row, '|');
    after text[] := string_to_array(new_row, '|');
    -- What is last may have the separator in it.
    served_by text := array_to_string(after[4:], '|');
    number bigint;
    moment timestamptz;
    former timestamptz;
    may_read boolean := current_setting('transaction_isolation') <> 'serializable';
BEGIN
    IF act = 'UPDATE' AND old_row = new_row THEN
        RETURN;
    END IF;
    -- A transaction with a snapshot of before the table was put into the index cannot see that it is there. In such a one the
    -- trigger's argument, which only who may execute its function can have written, says so.
    IF NOT EXISTS (
        SELECT FROM {public}.tenant_q_indexedschema AS known
        WHERE known.schema_name = own AND known.table_oid IN (tab::bigint, pg_partition_root(tab)::oid::bigint)
    ) AND (
        argument IS DISTINCT FROM name OR tab IS DISTINCT FROM to_regclass(quote_ident(name) || '.django_q_schedule')
        OR current_setting('transaction_isolation') = 'read committed'
    ) THEN
        RETURN;
    END IF;
    IF NOT may_read AND (
        act = 'TRUNCATE' OR act <> 'INSERT' AND before[2] <> '' AND before[3] <> '0' AND (
            after[1] IS DISTINCT FROM before[1] OR after[2] = '' OR after[3] = '0'
            OR after[2]::timestamptz NOT BETWEEN '0001-01-02' AND '9999-12-30'
        )
    ) THEN
        PERFORM pg_notify('tenant_q_unsure', name);
    END IF;
    IF act = 'TRUNCATE' THEN
        IF may_read THEN
            DELETE FROM {public}.tenant_q_dueschedule WHERE schema_name = own;
        END IF;
        RETURN;
    END IF;
    IF act <> 'INSERT' AND before[1] <> after[1] AND before[1] <> '' AND may_read THEN
        DELETE FROM {public}.tenant_q_dueschedule WHERE schema_name = own AND schedule_id = before[1]::bigint;
    END IF;
    IF after[1] = '' THEN
        RETURN;
    END IF;
    number := after[1]::bigint;
    moment := NULLIF(after[2], '')::timestamptz;
    IF moment IS NULL OR NULLIF(after[3], '')::bigint = 0 OR moment NOT BETWEEN '0001-01-02' AND '9999-12-30' THEN
        IF may_read THEN
            DELETE FROM {public}.tenant_q_dueschedule WHERE schema_name = own AND schedule_id = number;
        END IF;
        RETURN;
    END IF;
    INSERT INTO {public}.tenant_q_dueschedule AS held (schema_name, schedule_id, cluster, next_run, due, held)
    VALUES (own, number, served_by, moment, moment, '')
    ON CONFLICT (schema_name, schedule_id) DO UPDATE
    SET cluster = EXCLUDED.cluster, next_run = EXCLUDED.next_run, due = EXCLUDED.due, held = '';
    IF act = 'UPDATE' AND before[1] = after[1] AND before[3] <> '0' AND array_to_string(before[4:], '|') = served_by THEN
        former := NULLIF(before[2], '')::timestamptz;
    END IF;
    IF moment < clock_timestamp() + interval '1 hour' AND (former IS NULL OR moment < former) THEN
        PERFORM pg_notify('tenant_q_due', served_by);
    END IF;
END
$$;

-- Return the query that the trigger's function runs if its plan does not fit. For a TRUNCATE, which has no rows, the query takes
-- no parameters.
CREATE OR REPLACE FUNCTION {public}.tenant_q_index_query(name text, tab oid, argument text, act text) RETURNS text
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN format(
        'SELECT {public}.tenant_q_index_change(%L, %L, %L, %L, %s)', name, tab, argument, act,
        CASE WHEN act = 'TRUNCATE' THEN 'NULL, NULL' ELSE
            'format(''%s|%s|%s|%s'', ($1).id, ($1).next_run, ($1).repeats, ($1).cluster), '
            'format(''%s|%s|%s|%s'', ($2).id, ($2).next_run, ($2).repeats, ($2).cluster)'
        END
    );
END
$$;

-- The trigger's function. A session compiles it once for each table and keeps a plan of each expression that was used. Therefore
-- it usually makes one call, and an error shows that a rare case applies.
--
-- An error would keep a tenant from editing its schedules. Therefore it ignores an index that is gone with its app, a column that
-- is gone, and a value that cannot be read.
CREATE OR REPLACE FUNCTION {public}.tenant_q_index_schedule() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET datestyle = 'ISO, YMD'
AS $$
BEGIN
    -- format() calls output functions, whatever the types are.
    PERFORM {public}.tenant_q_index_change(
        TG_TABLE_SCHEMA, TG_RELID, TG_ARGV[0], TG_OP,
        format('%s|%s|%s|%s', OLD.id, OLD.next_run, OLD.repeats, OLD.cluster),
        format('%s|%s|%s|%s', NEW.id, NEW.next_run, NEW.repeats, NEW.cluster)
    );
    RETURN NULL;
EXCEPTION
    WHEN datatype_mismatch OR object_not_in_prerequisite_state THEN
        BEGIN
            IF TG_OP = 'TRUNCATE' THEN  -- there is no row
                EXECUTE {public}.tenant_q_index_query(TG_TABLE_SCHEMA, TG_RELID, TG_ARGV[0], TG_OP);
            ELSE
                -- The plan above keeps the columns' types, and a migration has changed one since this session made it.
                EXECUTE {public}.tenant_q_index_query(TG_TABLE_SCHEMA, TG_RELID, TG_ARGV[0], TG_OP) USING OLD, NEW;
            END IF;
            RETURN NULL;
        EXCEPTION
            WHEN serialization_failure THEN
                PERFORM pg_notify('tenant_q_unsure', TG_TABLE_SCHEMA);
                RETURN NULL;
            WHEN undefined_table OR undefined_column OR undefined_function OR data_exception THEN
                RETURN NULL;
        END;
    WHEN serialization_failure THEN
        -- The scheduler has written to the entry since this transaction's snapshot.
        PERFORM pg_notify('tenant_q_unsure', TG_TABLE_SCHEMA);
        RETURN NULL;
    WHEN undefined_table OR undefined_column OR undefined_function OR data_exception THEN
        RETURN NULL;
END
$$;

-- Return why the tables of a schema would run code of an untrusted role with the caller's rights, or null if they would not.
-- This covers everything that PostgreSQL runs for a statement on a plain table: what is not known to be harmless is refused.
CREATE OR REPLACE FUNCTION {public}.tenant_q_foreign_code(name text) RETURNS text
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN (WITH tab AS (
        SELECT tab.*, format('%I.%I', space.nspname, tab.relname) AS path
        FROM pg_class AS tab JOIN pg_namespace AS space ON space.oid = tab.relnamespace
        WHERE space.nspname = name AND {foreign} AND tab.relname IN (
            'django_q_task', 'django_q_schedule', 'tenant_q_workflows_run', 'tenant_q_workflows_step',
            'tenant_q_workflows_signal'
        )
    ), ours AS (
        SELECT fun.oid FROM pg_proc AS fun
        WHERE fun.oid IN (
            to_regprocedure('{public}.tenant_q_index_schedule()'), to_regprocedure('{public}.tenant_q_index_run()'),
            to_regprocedure('{public}.tenant_q_index_failure()')
        )
    ), found AS (
        SELECT 1 AS rank, format('%s is no plain table', path) AS reason FROM tab
        WHERE relkind <> 'r' OR relispartition OR relpersistence = 't'
        UNION ALL
        SELECT 2, format('%s has a table that inherits from it or it inherits from', path) FROM tab
        WHERE EXISTS (SELECT FROM pg_inherits WHERE inhparent = tab.oid OR inhrelid = tab.oid)
        UNION ALL
        SELECT 3, format('%s has row security', path) FROM tab WHERE relrowsecurity OR relforcerowsecurity
        UNION ALL
        SELECT 4, format('%s has the rule %I', path, rule.rulename)
        FROM tab JOIN pg_rewrite AS rule ON rule.ev_class = tab.oid AND tab.relkind = 'r'
        UNION ALL
        SELECT 5, format('%s has the trigger %I', path, trig.tgname)
        FROM tab JOIN pg_trigger AS trig ON trig.tgrelid = tab.oid
        WHERE NOT trig.tgisinternal AND (
            trig.tgfoid NOT IN (SELECT oid FROM ours)
            -- The conditions of failure_index.sql. A column's type is checked below.
            OR trig.tgqual IS NOT NULL AND pg_get_triggerdef(trig.oid) !~ (
                ' FOR EACH ROW WHEN \(\((NOT new\.success|NOT old\.success|\(NOT old\.success\) OR \(NOT new\.success\))\)\) '
                'EXECUTE FUNCTION [^ ]+\(''[^'']*''\)$'
            )
        )
        UNION ALL
        SELECT 6, format('%s has the column %I, whose type or value is not one of PostgreSQL''s own', path, col.attname)
        FROM tab JOIN pg_attribute AS col ON col.attrelid = tab.oid JOIN pg_type AS kind ON kind.oid = col.atttypid
        WHERE col.attnum > 0 AND NOT col.attisdropped AND tab.relkind = 'r' AND (
            col.attgenerated <> '' OR kind.typtype <> 'b' OR kind.typnamespace <> 'pg_catalog'::regnamespace
        )
        UNION ALL
        -- A sequence's next value, or a plain constant. Functions of PostgreSQL's can run any query that they are given.
        SELECT 7, format('%s has the column %I, with a default', path, col.attname)
        FROM tab JOIN pg_attrdef AS def ON def.adrelid = tab.oid
        JOIN pg_attribute AS col ON col.attrelid = tab.oid AND col.attnum = def.adnum
        WHERE tab.relkind = 'r' AND col.attgenerated = '' AND pg_get_expr(def.adbin, def.adrelid) !~
            '^(nextval\(''[^'']*''::regclass\)|(''[^'']*''|-?[0-9.]+|true|false)(::[a-z ]+(\([0-9]+\))?)?)$'
        UNION ALL
        SELECT 8, format('%s has the constraint %I', path, con.conname)
        FROM tab JOIN pg_constraint AS con ON con.conrelid = tab.oid OR con.confrelid = tab.oid
        WHERE con.contype NOT IN ('p', 'u', 'n', 't') AND NOT (
            con.contype = 'c' AND pg_get_constraintdef(con.oid) ~
            '^CHECK \(\(("[^"]+"|[a-z0-9_]+) (=|<>|<|<=|>|>=) -?[0-9]+\)\)( NOT VALID)?$'
        )
        UNION ALL
        SELECT 9, format('%s has the index %s', path, ind.indexrelid::regclass)
        FROM tab JOIN pg_index AS ind ON ind.indrelid = tab.oid
        WHERE ind.indexprs IS NOT NULL
            OR pg_get_expr(ind.indpred, ind.indrelid) !~ '^\(?("[^"]+"|[a-z0-9_]+)( = (true|false))?\)?$'
            OR EXISTS (
                SELECT FROM pg_opclass AS class WHERE class.oid = ANY (ind.indclass::oid[])
                    AND class.opcnamespace <> 'pg_catalog'::regnamespace
            )
        UNION ALL
        -- Their constants are computed for every query that is planned.
        SELECT 13, format('%s has the statistics %I', path, stat.stxname)
        FROM tab JOIN pg_statistic_ext AS stat ON stat.stxrelid = tab.oid WHERE stat.stxexprs IS NOT NULL
        UNION ALL
        -- What a later version of PostgreSQL may attach to a table. Functions and views that use it do not run for it.
        SELECT 14, format('%s has a %s', path, pg_describe_object(dep.classid, dep.objid, dep.objsubid))
        FROM tab JOIN pg_depend AS dep ON dep.refclassid = 'pg_class'::regclass AND dep.refobjid = tab.oid
        WHERE dep.classid NOT IN (
            'pg_class'::regclass, 'pg_type'::regclass, 'pg_attrdef'::regclass, 'pg_constraint'::regclass,
            'pg_trigger'::regclass, 'pg_rewrite'::regclass, 'pg_statistic_ext'::regclass, 'pg_proc'::regclass,
            'pg_publication_rel'::regclass
        )
        UNION ALL
        -- What stands in the schema is found before PostgreSQL's own where the types fit better.
        SELECT 10, format('the schema %I has the operator %s', name, op.oid::regoperator)
        FROM pg_operator AS op WHERE op.oprnamespace = to_regnamespace(quote_ident(name)) AND EXISTS (SELECT FROM tab)
        UNION ALL
        SELECT 11, format('the schema %I has the function %s, named as one of PostgreSQL''s own', name, fun.oid::regprocedure)
        FROM pg_proc AS fun WHERE fun.pronamespace = to_regnamespace(quote_ident(name)) AND EXISTS (SELECT FROM tab)
            AND EXISTS (
                SELECT FROM pg_proc AS own WHERE own.proname = fun.proname AND own.pronamespace = 'pg_catalog'::regnamespace
            )
        UNION ALL
        SELECT 12, format('there is a cast from or to the type %s of the schema', kind.oid::regtype)
        FROM pg_cast AS conv JOIN pg_type AS kind ON kind.oid IN (conv.castsource, conv.casttarget)
        WHERE kind.typnamespace = to_regnamespace(quote_ident(name)) AND EXISTS (SELECT FROM tab)
    )
    SELECT reason FROM found ORDER BY rank LIMIT 1);
END
$$;

-- Lock tables of some schemas against changes of their definition, and raise an error if a schema would run code of an untrusted
-- role. Call it first in the transaction that uses the tables. Schemas whose roles are trusted are not locked.
CREATE OR REPLACE FUNCTION {public}.tenant_q_require_plain(names text[], tables text[]) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    name text;
    path text;
    reason text;
BEGIN
    FOREACH name IN ARRAY names LOOP
        IF {foreign} IS NOT TRUE THEN
            CONTINUE;
        END IF;
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            reason := 'its tables can be checked for foreign code in READ COMMITTED only';
        ELSE
            FOR path IN
                SELECT format('%I.%I', name, relname) FROM pg_class
                WHERE relnamespace = to_regnamespace(quote_ident(name))
                    AND relname = ANY (tables) AND relkind = 'r'
                ORDER BY relname
            LOOP
                -- The weakest one that keeps out triggers, rules, constraints, and tables that inherit.
                EXECUTE 'LOCK TABLE ONLY ' || path || ' IN SHARE UPDATE EXCLUSIVE MODE';
            END LOOP;
            reason := {public}.tenant_q_foreign_code(name);
        END IF;
        IF reason IS NOT NULL THEN
            RAISE EXCEPTION '%', format(
                'The tables of %I belong to another role, whose code would run with the rights of %I: %s; '
                'remove that, or give schema and tables to %I.', name, current_user, reason, current_user
            ) USING ERRCODE = 'TQ001';
        END IF;
    END LOOP;
END
$$;

-- Put the triggers on one schema's table, if they are missing. The role that executes it also needs EXECUTE on the trigger's
-- function and TRIGGER on the table.
CREATE OR REPLACE FUNCTION {public}.tenant_q_install_triggers(name text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tab regclass := to_regclass(quote_ident(name) || '.django_q_schedule');
BEGIN
    IF tab IS NULL OR 2 = (
        SELECT count(*) FROM pg_trigger
        WHERE tgrelid = tab AND tgname IN ('tenant_q_index_schedule', 'tenant_q_index_truncate')
            AND tgenabled IN ('O', 'A') AND tgfoid = '{public}.tenant_q_index_schedule()'::regprocedure
    ) THEN
        RETURN;
    END IF;
    -- Replaced rather than dropped, which readers would have to wait for. It names no column: one that a trigger names keeps
    -- its type, so that a migration of Django-Q2's would fail.
    EXECUTE format('CREATE OR REPLACE TRIGGER tenant_q_index_schedule AFTER INSERT OR DELETE OR UPDATE ON %s '
                   'FOR EACH ROW EXECUTE FUNCTION {public}.tenant_q_index_schedule(%L)', tab, name);
    EXECUTE format('CREATE OR REPLACE TRIGGER tenant_q_index_truncate AFTER TRUNCATE ON %s '
                   'FOR EACH STATEMENT EXECUTE FUNCTION {public}.tenant_q_index_schedule(%L)', tab, name);
END
$$;

-- Put one schema's schedules into the index: create its triggers, if they are missing, and write its rows as they are now. The
-- lock that a new trigger takes keeps writers out until the entries are written.
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
    PERFORM {public}.tenant_q_require_plain(ARRAY[name], ARRAY['django_q_schedule']);
    PERFORM {public}.tenant_q_install_triggers(name);
    DELETE FROM {public}.tenant_q_dueschedule WHERE schema_name = name;
    EXECUTE format('INSERT INTO {public}.tenant_q_dueschedule (schema_name, schedule_id, cluster, next_run, due, held) '
                   'SELECT %L, id, COALESCE(cluster, ''''), next_run, next_run, '''' FROM %s '
                   'WHERE repeats <> 0 AND next_run BETWEEN ''0001-01-02'' AND ''9999-12-30''', name, tab);
    INSERT INTO {public}.tenant_q_indexedschema AS known (schema_name, table_oid) VALUES (name, tab::oid::bigint)
    ON CONFLICT (schema_name) DO UPDATE SET table_oid = EXCLUDED.table_oid;
    PERFORM pg_notify('tenant_q_due', '');
END
$$;

-- Find the schemas that differ from the index: new, restored, renamed, without their triggers, or dropped, even if only their
-- entries are left. One query over the catalogue. The caller finds out whether a new schema belongs to a tenant.
CREATE OR REPLACE FUNCTION {public}.tenant_q_stale_schemas() RETURNS TABLE (schema_name text, is_gone boolean)
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    WITH RECURSIVE there AS (
        SELECT space.nspname::text AS name, tab.oid::bigint AS table_oid, (
            SELECT count(*) = 2 FROM pg_trigger
            WHERE tgrelid = tab.oid AND tgname IN ('tenant_q_index_schedule', 'tenant_q_index_truncate')
                AND tgenabled IN ('O', 'A') AND tgfoid = ours.id
        ) AS has_triggers
        FROM pg_class AS tab JOIN pg_namespace AS space ON space.oid = tab.relnamespace
        CROSS JOIN (SELECT to_regprocedure('{public}.tenant_q_index_schedule()')::oid AS id) AS ours
        WHERE tab.relname = 'django_q_schedule' AND tab.relkind IN ('r', 'p')
            AND space.nspname NOT LIKE 'pg\_%'
    ), named AS (
        -- One step in the index for each schema.
        (SELECT entry.schema_name FROM {public}.tenant_q_dueschedule AS entry ORDER BY entry.schema_name LIMIT 1)
        UNION ALL
        SELECT (
            SELECT entry.schema_name FROM {public}.tenant_q_dueschedule AS entry
            WHERE entry.schema_name > named.schema_name ORDER BY entry.schema_name LIMIT 1
        ) FROM named WHERE named.schema_name IS NOT NULL
    )
    SELECT COALESCE(there.name, known.schema_name), there.name IS NULL
    FROM there FULL JOIN {public}.tenant_q_indexedschema AS known ON known.schema_name = there.name
    WHERE there.name IS NULL OR known.schema_name IS NULL OR known.table_oid <> there.table_oid
        OR NOT there.has_triggers
    UNION
    SELECT named.schema_name, true FROM named
    WHERE named.schema_name IS NOT NULL AND named.schema_name NOT IN (SELECT there.name FROM there)
        AND named.schema_name NOT IN (SELECT known.schema_name FROM {public}.tenant_q_indexedschema AS known)
$$;

-- Take a schema that is gone, or no tenant's, out of the index.
CREATE OR REPLACE FUNCTION {public}.tenant_q_forget_schema(name text) RETURNS void
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM {public}.tenant_q_dueschedule WHERE schema_name = name;
    DELETE FROM {public}.tenant_q_indexedschema WHERE schema_name = name;
$$;

-- Return the number of schedules of a schema that are wrong in the index: missing, superfluous, or different.
CREATE OR REPLACE FUNCTION {public}.tenant_q_index_errors(name text) RETURNS bigint
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    tab regclass := to_regclass(quote_ident(name) || '.django_q_schedule');
    found bigint;
BEGIN
    IF tab IS NULL THEN
        RETURN (SELECT count(*) FROM {public}.tenant_q_dueschedule WHERE schema_name = name);
    END IF;
    PERFORM {public}.tenant_q_require_plain(ARRAY[name], ARRAY['django_q_schedule']);
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
$$;

-- Only the owner and the roles that may write to the index may execute the functions, such as the role of a cluster. A role that
-- migrates tenants also needs the trigger's function, which only an operator can grant.
REVOKE ALL ON FUNCTION
    {public}.tenant_q_index_schedule(), {public}.tenant_q_index_change(text, oid, text, text, text, text),
    {public}.tenant_q_index_query(text, oid, text, text), {public}.tenant_q_install_triggers(text),
    {public}.tenant_q_foreign_code(text), {public}.tenant_q_require_plain(text[], text[]),
    {public}.tenant_q_install_index(text), {public}.tenant_q_stale_schemas(),
    {public}.tenant_q_forget_schema(text), {public}.tenant_q_index_errors(text)
FROM PUBLIC;
DO $$
DECLARE
    writer text;
BEGIN
    FOR writer IN
        SELECT DISTINCT acl.grantee::pg_catalog.regrole::pg_catalog.text
        FROM pg_catalog.pg_class AS tab, pg_catalog.aclexplode(tab.relacl) AS acl
        WHERE tab.oid = '{public}.tenant_q_dueschedule'::pg_catalog.regclass
            AND acl.privilege_type = 'INSERT' AND acl.grantee <> 0 AND acl.grantee <> tab.relowner
    LOOP
        EXECUTE 'GRANT EXECUTE ON FUNCTION '
            '{public}.tenant_q_install_triggers(text), '
            '{public}.tenant_q_foreign_code(text), {public}.tenant_q_require_plain(text[], text[]), '
            '{public}.tenant_q_install_index(text), {public}.tenant_q_stale_schemas(), '
            '{public}.tenant_q_forget_schema(text), {public}.tenant_q_index_errors(text) TO ' || writer;
    END LOOP;
END
$$

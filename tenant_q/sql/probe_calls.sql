-- Find what tenants' roles could call if the server did not refuse it: functions of SECURITY DEFINER that they may not execute. They are
-- called without values, or put on a temporary table if they are for triggers.
--
-- {roles}  the OIDs of the roles
--
-- Rows: the OID of the role, the function, and the statement that calls it.
SELECT subject.role::int8, fun.oid::regprocedure::text,
    CASE
        WHEN fun.prorettype = 'pg_catalog.trigger'::regtype THEN format(
            'CREATE TEMPORARY TABLE tenant_q_probe (id int); CREATE TRIGGER tenant_q_probe AFTER INSERT ON tenant_q_probe '
            'FOR EACH ROW EXECUTE FUNCTION %I.%I()', space.nspname, fun.proname
        )
        ELSE format('%s %I.%I(%s)', CASE fun.prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, space.nspname, fun.proname, (
            SELECT pg_catalog.string_agg(format('NULL::%s', pg_catalog.format_type(one, NULL)), ', ' ORDER BY place)
            FROM pg_catalog.unnest(fun.proargtypes) WITH ORDINALITY AS listed (one, place)
        ))
    END
FROM pg_catalog.pg_proc AS fun JOIN pg_catalog.pg_namespace AS space ON space.oid = fun.pronamespace
CROSS JOIN pg_catalog.unnest({roles}::oid[]) AS subject (role)
WHERE subject.role <> 0 AND fun.prosecdef AND fun.prokind IN ('f', 'p') AND fun.prorettype <> 'pg_catalog.event_trigger'::regtype
    AND NOT pg_catalog.has_function_privilege(subject.role, fun.oid, 'EXECUTE')
ORDER BY 2, 1

-- Return the grants that the current role needs to put the triggers on one schema's table of schedules, as statements for the
-- owners of the schema, the table and the functions.
--
-- {name}    the schema
-- {table}   its django_q_schedule, qualified and quoted, in a literal
-- {public}  the public schema, quoted, in a literal
SELECT needed.statement FROM (
    SELECT pg_catalog.format('GRANT USAGE ON SCHEMA %I TO %I', {name}, current_user) AS statement, 1 AS rank
    WHERE NOT pg_catalog.has_schema_privilege({name}, 'USAGE')
    UNION ALL
    SELECT pg_catalog.format('GRANT SELECT, UPDATE, TRIGGER ON TABLE %s TO %I', {table}, current_user), 2
    WHERE pg_catalog.has_schema_privilege({name}, 'USAGE') AND NOT (
        pg_catalog.has_table_privilege({table}, 'SELECT') AND pg_catalog.has_table_privilege({table}, 'UPDATE')
        AND pg_catalog.has_table_privilege({table}, 'TRIGGER')
    )
    UNION ALL
    SELECT pg_catalog.format(
        'GRANT EXECUTE ON FUNCTION %1$s.tenant_q_index_schedule(), %1$s.tenant_q_install_triggers(text) TO %2$I',
        {public}, current_user
    ), 3
    WHERE NOT (
        pg_catalog.has_function_privilege(
            pg_catalog.concat({public}, '.tenant_q_index_schedule()')::pg_catalog.regprocedure, 'EXECUTE'
        )
        AND pg_catalog.has_function_privilege(
            pg_catalog.concat({public}, '.tenant_q_install_triggers(text)')::pg_catalog.regprocedure, 'EXECUTE'
        )
    )
) AS needed
ORDER BY needed.rank

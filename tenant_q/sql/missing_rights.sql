-- Return the grants that the current role needs to put the triggers on one schema's table of schedules or runs, as statements for the
-- owners of the schema, the table and the functions.
--
-- {name}     the schema
-- {table}    its table, qualified and quoted, in a literal
-- {trigger}  the triggers' function, qualified and quoted, with its arguments' types, in a literal
-- {install}  the function that puts the triggers on the table, in the same form
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
    SELECT pg_catalog.format('GRANT EXECUTE ON FUNCTION %s, %s TO %I', {trigger}, {install}, current_user), 3
    WHERE NOT (
        pg_catalog.has_function_privilege({trigger}::pg_catalog.regprocedure, 'EXECUTE')
        AND pg_catalog.has_function_privilege({install}::pg_catalog.regprocedure, 'EXECUTE')
    )
) AS needed
ORDER BY needed.rank

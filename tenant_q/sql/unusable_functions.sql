-- Find the functions of the index that the current role may not execute.
--
-- {names}   the names of the functions that a cluster calls
-- {public}  the public schema
SELECT fun.oid::pg_catalog.regprocedure::pg_catalog.text, current_user::pg_catalog.text
FROM pg_catalog.pg_proc AS fun JOIN pg_catalog.pg_namespace AS space ON space.oid OPERATOR(pg_catalog.=) fun.pronamespace
WHERE space.nspname OPERATOR(pg_catalog.=) {public}
    AND fun.proname OPERATOR(pg_catalog.=) ANY ({names}::pg_catalog.text[])
    AND NOT pg_catalog.has_function_privilege(fun.oid, 'EXECUTE')
ORDER BY fun.proname

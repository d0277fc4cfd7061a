-- Return what keeps PostgreSQL from dropping a role: what it owns, and what it has rights on.
--
-- {role}  the name of the role, a literal
--
-- Columns: the other database in which that is, or null for this one and for what all databases share; a description, which is null
-- for objects in another database; and whether it is this database itself
SELECT
    CASE WHEN depends.dbid OPERATOR(pg_catalog.<>) 0 AND base.datname OPERATOR(pg_catalog.<>) pg_catalog.current_database()
        THEN base.datname::pg_catalog.text END,
    CASE WHEN depends.dbid OPERATOR(pg_catalog.=) 0 OR base.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
        THEN pg_catalog.pg_describe_object(depends.classid, depends.objid, depends.objsubid) END,
    depends.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_database'::pg_catalog.regclass AND depends.objid OPERATOR(pg_catalog.=) (
        SELECT here.oid FROM pg_catalog.pg_database AS here
        WHERE here.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
    )
FROM pg_catalog.pg_shdepend AS depends
JOIN pg_catalog.pg_roles AS own ON own.oid OPERATOR(pg_catalog.=) depends.refobjid
LEFT JOIN pg_catalog.pg_database AS base ON base.oid OPERATOR(pg_catalog.=) depends.dbid
WHERE depends.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_authid'::pg_catalog.regclass
    AND own.rolname OPERATOR(pg_catalog.=) {role}::pg_catalog.name
ORDER BY 1 NULLS FIRST, 2

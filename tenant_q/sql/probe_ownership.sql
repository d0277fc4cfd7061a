-- Find what tenants' roles own, except for their temporary tables and large objects, and what they own or hold in other databases.
--
-- {roles}  the OIDs of the roles
--
-- Rows: as the grants of probe_rights.sql. What is in another database is closed by a statement that is run there.
SELECT 'ownership' AS kind, 'OWNER' AS "right", upper(thing.type) || ' ' || thing.identity AS object, quote_ident(one.rolname) AS holder,
    false AS is_warning, ARRAY[one.oid] AS roles,
    format('ALTER %s %s OWNER TO %I', upper(thing.type), thing.identity, one.rolname) AS opens,
    format('ALTER %s %s OWNER TO %I', upper(thing.type), thing.identity, current_user) AS closes
FROM pg_shdepend AS owned JOIN pg_roles AS one ON one.oid = owned.refobjid
CROSS JOIN pg_identify_object(owned.classid, owned.objid, owned.objsubid) AS thing
WHERE owned.refclassid = 'pg_authid'::regclass AND owned.refobjid = ANY ({roles}::oid[]) AND owned.deptype = 'o'
    AND owned.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
    AND owned.classid NOT IN ('pg_largeobject'::regclass, 'pg_default_acl'::regclass)
    AND NOT starts_with(COALESCE(thing.schema, ''), 'pg_temp')
    -- The owner of a table owns the sequences of its columns.
    AND NOT EXISTS (
        SELECT FROM pg_depend AS part
        WHERE part.classid = owned.classid AND part.objid = owned.objid AND part.refclassid = 'pg_class'::regclass
            AND part.refobjsubid > 0 AND thing.type = 'sequence'
    )
UNION ALL
SELECT DISTINCT 'ownership', 'OWNER OR GRANTS', format('DATABASE %I', base.datname), quote_ident(one.rolname), false, ARRAY[one.oid],
    format('GRANT or OWNER in the database %I', base.datname), format('DROP OWNED BY %I', one.rolname)
FROM pg_shdepend AS owned JOIN pg_roles AS one ON one.oid = owned.refobjid JOIN pg_database AS base ON base.oid = owned.dbid
WHERE owned.refclassid = 'pg_authid'::regclass AND owned.refobjid = ANY ({roles}::oid[]) AND base.datname <> current_database()

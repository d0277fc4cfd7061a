-- Find tables and views of a tenant's schema, and shared views, through which its role reaches other schemas although it has no
-- grant there: views and rules run with the rights of their owner, a foreign key reads and changes the referring table, and
-- a table's rows include those of its children.
--
-- {roles}   the OIDs of the roles
-- {spaces}  the OIDs of their schemas, in the same order; 0 for a role without one
-- {shared}  the OIDs of the schemas that all tenants' search paths contain
--
-- Rows: as the grants of probe_rights.sql.
WITH subject AS (
    SELECT listed.role, listed.space FROM unnest({roles}::oid[], {spaces}::oid[]) AS listed (role, space) WHERE listed.space <> 0
), relation AS (
    SELECT tab.oid, tab.relkind, tab.relnamespace AS space, tab.reloptions, format('%I.%I', space.nspname, tab.relname) AS name
    FROM pg_class AS tab JOIN pg_namespace AS space ON space.oid = tab.relnamespace
    WHERE tab.relkind IN ('r', 'p', 'v', 'm', 'f')
), door AS (
    SELECT DISTINCT subject.role, near.oid, near.relkind, near.name AS near, far.name AS far, rule.rulename
    FROM subject
    JOIN relation AS near ON near.space = subject.space OR near.space = ANY ({shared}::oid[])
    JOIN pg_rewrite AS rule ON rule.ev_class = near.oid
    JOIN pg_depend AS used ON used.classid = 'pg_rewrite'::regclass AND used.objid = rule.oid AND used.refclassid = 'pg_class'::regclass
    JOIN relation AS far ON far.oid = used.refobjid
    WHERE far.oid <> near.oid AND far.space <> subject.space
        AND has_table_privilege(subject.role, near.oid, 'SELECT,INSERT,UPDATE,DELETE')
        AND NOT has_table_privilege(subject.role, far.oid, 'SELECT')
        AND NOT COALESCE(near.reloptions && '{{security_invoker=true,security_invoker=on,security_invoker=1}}', false)
        -- A shared view of shared tables is what the project shares.
        AND NOT (near.space = ANY ({shared}::oid[]) AND far.space = ANY ({shared}::oid[]))
)
SELECT 'door' AS kind, CASE WHEN door.relkind IN ('v', 'm') THEN 'VIEW' ELSE 'RULE' END AS "right",
    format('%s FROM %s', CASE WHEN door.relkind IN ('v', 'm') THEN 'ROWS' ELSE 'WRITES' END, door.far) AS object, door.near AS holder,
    false AS is_warning, array_agg(door.role ORDER BY door.role) AS roles,
    CASE door.relkind
        WHEN 'v' THEN format('CREATE VIEW %s AS ... FROM %s', door.near, door.far)
        WHEN 'm' THEN format('CREATE MATERIALIZED VIEW %s AS ... FROM %s', door.near, door.far)
        ELSE format('CREATE RULE %I ON ... TO %s DO ... %s', door.rulename, door.near, door.far)
    END AS opens,
    CASE door.relkind
        WHEN 'v' THEN format('ALTER VIEW %s SET (security_invoker = true)', door.near)
        WHEN 'm' THEN (
            SELECT string_agg(format('REVOKE ALL ON TABLE %s FROM %I', door.near, pg_get_userbyid(one)), '; ' ORDER BY one)
            FROM unnest(array_agg(door.role)) AS one
        )
        ELSE format('DROP RULE %I ON %s', door.rulename, door.near)
    END AS closes
FROM door GROUP BY door.near, door.far, door.relkind, door.rulename
UNION ALL
SELECT 'door', 'FOREIGN KEY', format('ROWS OF %s', other.name), own.name, false, ARRAY[subject.role],
    format('ALTER TABLE %s ADD CONSTRAINT %I %s', referring.name, con.conname, pg_get_constraintdef(con.oid)),
    format('ALTER TABLE %s DROP CONSTRAINT %I', referring.name, con.conname)
FROM pg_constraint AS con
JOIN relation AS referring ON referring.oid = con.conrelid
JOIN relation AS referred ON referred.oid = con.confrelid
JOIN subject ON subject.space IN (referring.space, referred.space)
CROSS JOIN LATERAL (
    SELECT CASE subject.space WHEN referring.space THEN referring.name ELSE referred.name END
) AS own (name)
CROSS JOIN LATERAL (
    SELECT CASE subject.space WHEN referring.space THEN referred.name ELSE referring.name END
) AS other (name)
WHERE con.contype = 'f' AND con.conparentid = 0 AND referring.space <> referred.space
    -- The tables of tenants may refer to shared ones.
    AND NOT (subject.space = referring.space AND referred.space = ANY ({shared}::oid[]))
UNION ALL
SELECT 'door', 'INHERITANCE', format('ROWS OF %s', child.name), parent.name, false, ARRAY[subject.role],
    format(CASE WHEN parent.relkind = 'p' THEN 'ALTER TABLE %2$s ATTACH PARTITION %1$s ...' ELSE 'ALTER TABLE %1$s INHERIT %2$s' END,
        child.name, parent.name),
    format(CASE WHEN parent.relkind = 'p' THEN 'ALTER TABLE %2$s DETACH PARTITION %1$s' ELSE 'ALTER TABLE %1$s NO INHERIT %2$s' END,
        child.name, parent.name)
FROM pg_inherits AS link
JOIN relation AS child ON child.oid = link.inhrelid
JOIN relation AS parent ON parent.oid = link.inhparent
JOIN subject ON subject.space = parent.space
WHERE child.space <> parent.space
ORDER BY 3, 4

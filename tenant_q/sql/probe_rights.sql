-- Check every right of tenants' roles on every object of one kind, and return those that no role of a tenant may have.
-- The server decides who holds a right; the access control lists show which grant opens it.
--
-- {kind}     the kind of the objects
-- {rights}   the rights to check
-- {own}      of these the rights that a role has on the objects of its own schema
-- {objects}  the query of the objects: oid, part (of a column its number, else 0), name, space (its schema, or 0), owner, acl, target
--            and columns (as GRANT writes them), and three lists of rights: public (which PUBLIC has on any site), shared
--            (which tenants' roles may have), warned (which PUBLIC has on most sites, and which are worth a warning)
-- {roles}    the OIDs of the roles
-- {spaces}   the OIDs of their schemas, in the same order; 0 for a role without one
--
-- Rows: one. checked: the number of rights; opened: a JSON list of the grants to revoke; inherited: a JSON list of the roles that
-- hold rights without such a grant, with an example.
WITH subject AS MATERIALIZED (
    SELECT listed.role, listed.space FROM unnest({roles}::oid[], {spaces}::oid[]) AS listed (role, space)
), object AS MATERIALIZED (
    {objects}
), held AS MATERIALIZED (
    SELECT asked.* FROM (
        SELECT subject.role, object.oid, object.part, object.target, wanted.name AS "right",
            (subject.space = object.space AND wanted.name = ANY ({own}::text[]))
                OR wanted.name = ANY (object.public || object.shared) OR subject.role = object.owner AS is_expected,
            CASE {kind}
                WHEN 'table' THEN has_table_privilege(subject.role, object.oid, wanted.name)
                WHEN 'column' THEN has_column_privilege(subject.role, object.oid, object.part, wanted.name)
                    AND NOT has_table_privilege(subject.role, object.oid, wanted.name)
                WHEN 'sequence' THEN has_sequence_privilege(subject.role, object.oid, wanted.name)
                WHEN 'schema' THEN has_schema_privilege(subject.role, object.oid, wanted.name)
                WHEN 'function' THEN has_function_privilege(subject.role, object.oid, wanted.name)
                WHEN 'type' THEN has_type_privilege(subject.role, object.oid, wanted.name)
                WHEN 'foreign server' THEN has_server_privilege(subject.role, object.oid, wanted.name)
                WHEN 'foreign-data wrapper' THEN has_foreign_data_wrapper_privilege(subject.role, object.oid, wanted.name)
                WHEN 'language' THEN has_language_privilege(subject.role, object.oid, wanted.name)
                WHEN 'tablespace' THEN has_tablespace_privilege(subject.role, object.oid, wanted.name)
                WHEN 'parameter' THEN has_parameter_privilege(subject.role, object.name, wanted.name)
                WHEN 'database' THEN has_database_privilege(subject.role, object.oid, wanted.name)
                -- Before PostgreSQL 18 the server has no function for large objects.
                WHEN 'large object' THEN EXISTS (
                    SELECT FROM aclexplode(object.acl) AS entry
                    WHERE entry.privilege_type = wanted.name
                        AND (entry.grantee = 0 OR pg_has_role(subject.role, entry.grantee, 'USAGE'))
                )
            END AS is_held
        FROM object CROSS JOIN subject CROSS JOIN unnest({rights}::text[]) AS wanted (name)
        OFFSET 0 -- so that the server is asked for each right, expected or not
    ) AS asked
    WHERE asked.is_held AND NOT asked.is_expected
), entry AS MATERIALIZED (
    SELECT object.oid, object.part, object.space, object.owner, object.target, object.columns, object.shared, acl.grantor,
        acl.grantee, acl.privilege_type AS "right", acl.is_grantable,
        acl.grantee = 0 AND acl.privilege_type = ANY (object.warned) AS is_warning
    FROM object CROSS JOIN aclexplode(object.acl) AS acl
    WHERE acl.grantee <> object.owner AND acl.privilege_type = ANY ({rights}::text[])
        AND CASE acl.grantee WHEN 0 THEN acl.privilege_type <> ALL (object.public) ELSE acl.grantee = ANY ({roles}::oid[]) END
), opened AS MATERIALIZED (
    SELECT entry.*, subject.role,
        entry.grantee <> 0
            AND ((subject.space = entry.space AND entry.right = ANY ({own}::text[])) OR entry.right = ANY (entry.shared)) AS is_own
    FROM entry JOIN subject ON entry.grantee IN (0, subject.role)
    WHERE entry.owner <> subject.role
), reported AS (
    SELECT opened.*, CASE opened.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(opened.grantee)) END AS holder,
        CASE WHEN opened.is_own THEN 'GRANT OPTION FOR ' ELSE '' END AS option
    FROM opened WHERE opened.is_grantable OR NOT opened.is_own
), grants AS (
    SELECT {kind} AS kind, reported.option || reported.right || reported.columns AS "right", reported.target AS object,
        reported.holder, reported.is_warning, array_agg(reported.role ORDER BY reported.role) AS roles,
        format(
            'GRANT %s%s ON %s TO %s%s', reported.right, reported.columns, reported.target, reported.holder,
            CASE WHEN reported.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END
        ) AS opens,
        -- Only its grantor can revoke it.
        format(
            CASE reported.grantor WHEN reported.owner THEN '%2$s' ELSE 'SET ROLE %1$I; %2$s; RESET ROLE' END,
            pg_get_userbyid(reported.grantor), format(
                'REVOKE %s%s%s ON %s FROM %s%s', reported.option, reported.right, reported.columns, reported.target,
                reported.holder, CASE WHEN reported.is_grantable THEN ' CASCADE' ELSE '' END
            )
        ) AS closes
    FROM reported
    GROUP BY reported.target, reported.columns, reported.right, reported.holder, reported.is_warning, reported.option,
        reported.is_grantable, reported.grantor, reported.owner
    ORDER BY reported.target, reported.columns, reported.right, reported.holder
), inherited AS (
    SELECT held.role, count(*) AS rights, min(held.right || ' on ' || held.target) AS example
    FROM held WHERE NOT EXISTS (
        SELECT FROM opened
        WHERE opened.role = held.role AND opened.oid = held.oid AND opened.part = held.part AND opened.right = held.right
    )
    GROUP BY held.role
)
SELECT (SELECT count(*) FROM object) * (SELECT count(*) FROM subject) * cardinality({rights}::text[]) AS checked,
    (SELECT json_agg(grants) FROM grants) AS opened, (SELECT json_agg(inherited) FROM inherited) AS inherited

-- Find the memberships that give tenants' roles the rights of another role, by inheritance, by SET ROLE or by the right to grant it.
-- The group of all tenants' roles gives none.
--
-- {roles}  the OIDs of the roles
-- {group}  the name of the group
--
-- Rows: as the grants of probe_rights.sql; the group's options are revoked, any other membership as a whole.
SELECT 'membership' AS kind, concat_ws(', ', CASE WHEN given.inherit_option THEN 'INHERIT' END,
        CASE WHEN given.set_option THEN 'SET' END, CASE WHEN given.admin_option THEN 'ADMIN' END) AS "right",
    format('ROLE %I', other.rolname) AS object, quote_ident(member.rolname) AS holder, false AS is_warning,
    ARRAY[given.member] AS roles,
    format('GRANT %I TO %I WITH INHERIT %s, SET %s, ADMIN %s GRANTED BY %I', other.rolname, member.rolname,
        upper(given.inherit_option::text), upper(given.set_option::text), upper(given.admin_option::text), grantor.rolname) AS opens,
    CASE WHEN other.rolname = {group} THEN concat_ws('; ', option.inherited, option.set, option.admin)
        ELSE format('REVOKE %I FROM %I GRANTED BY %I CASCADE', other.rolname, member.rolname, grantor.rolname)
    END AS closes
FROM pg_auth_members AS given
JOIN pg_roles AS other ON other.oid = given.roleid
JOIN pg_roles AS member ON member.oid = given.member
JOIN pg_roles AS grantor ON grantor.oid = given.grantor
CROSS JOIN LATERAL (
    SELECT
        CASE WHEN given.inherit_option THEN format(
            'REVOKE INHERIT OPTION FOR %I FROM %I GRANTED BY %I', other.rolname, member.rolname, grantor.rolname
        ) END AS inherited,
        CASE WHEN given.set_option THEN format(
            'REVOKE SET OPTION FOR %I FROM %I GRANTED BY %I', other.rolname, member.rolname, grantor.rolname
        ) END AS set,
        CASE WHEN given.admin_option THEN format(
            'REVOKE ADMIN OPTION FOR %I FROM %I GRANTED BY %I CASCADE', other.rolname, member.rolname, grantor.rolname
        ) END AS admin
) AS option
WHERE given.member = ANY ({roles}::oid[]) AND (given.inherit_option OR given.set_option OR given.admin_option)
ORDER BY member.rolname, other.rolname

-- Check every right of tenants' roles on every other role: to inherit its rights, to switch to it, to grant it.
--
-- {roles}  the OIDs of the roles
--
-- Rows: one. checked: the number of rights; inherited: a JSON list of the roles that hold any, with an example.
WITH held AS MATERIALIZED (
    SELECT asked.* FROM (
        SELECT subject.role, other.rolname, wanted.name AS "right", pg_has_role(subject.role, other.oid, wanted.name) AS is_held
        FROM unnest({roles}::oid[]) AS subject (role) JOIN pg_roles AS other ON other.oid <> subject.role
        CROSS JOIN (VALUES ('USAGE'), ('SET'), ('MEMBER WITH ADMIN OPTION')) AS wanted (name)
        OFFSET 0
    ) AS asked
), inherited AS (
    SELECT held.role, count(*) AS rights, min(format('%s on ROLE %I', held.right, held.rolname)) AS example
    FROM held WHERE held.is_held GROUP BY held.role
)
SELECT (SELECT count(*) FROM held) AS checked, NULL::json AS opened, (SELECT json_agg(inherited) FROM inherited) AS inherited

-- Switch the session to a role that its user may set.
--
-- {role}  the role's name, or none for the user's own rights
SELECT pg_catalog.set_config('role', {role}, false)

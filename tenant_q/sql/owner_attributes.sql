-- Return whether the role that logged in, or the one that it acts as, is a superuser, and whether one of them may create roles.
SELECT pg_catalog.bool_or(rolsuper), pg_catalog.bool_or(rolcreaterole)
FROM pg_catalog.pg_roles WHERE rolname OPERATOR(pg_catalog.=) current_user OR rolname OPERATOR(pg_catalog.=) session_user

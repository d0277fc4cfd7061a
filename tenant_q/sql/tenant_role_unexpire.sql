-- Have a tenant's role not expire, which only an administrator can have changed. PostgreSQL cannot take the end away again, and no
-- client that reads dates can read 'infinity'.
--
-- {role}  the role
ALTER ROLE {role} VALID UNTIL '9999-01-01 00:00:00+00'

-- Let only roles to which CONNECT was granted connect to the database. As one message, it is one transaction.
--
-- {database}  the database
-- {kept}      the roles that need it: the owner of the tenants' objects and the admin role
GRANT CONNECT ON DATABASE {database} TO {kept};
REVOKE CONNECT ON DATABASE {database} FROM PUBLIC

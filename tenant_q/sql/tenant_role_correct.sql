-- Correct a tenant's role, which may have changed its own password and settings. As one message, it is one transaction.
--
-- {role}      the role
-- {group}     the group of all tenants' roles of the database
-- {database}  the database
-- {limit}     the most sessions at once; -1 for no limit
-- {verifier}  the SCRAM verifier of its password
ALTER ROLE {role} NOINHERIT NOCREATEROLE CONNECTION LIMIT {limit} PASSWORD {verifier};
ALTER ROLE {role} RESET ALL;
ALTER ROLE {role} IN DATABASE {database} RESET ALL;
GRANT {group} TO {role} WITH INHERIT FALSE, SET FALSE

-- Create a tenant's role in the group, which shows that it is ours. As one message, it is one transaction.
--
-- {role}      the role
-- {group}     the group of all tenants' roles of the database
-- {limit}     the most sessions at once; -1 for no limit
-- {verifier}  the SCRAM verifier of its password
CREATE ROLE {role} LOGIN NOSUPERUSER NOINHERIT NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT {limit} PASSWORD {verifier};
GRANT {group} TO {role} WITH INHERIT FALSE, SET FALSE

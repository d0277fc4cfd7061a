-- Create a tenant's role in the group, which shows that it is ours. It may log in once it has its grants. As one message, it is one
-- transaction.
--
-- {role}      the role
-- {group}     the group of all tenants' roles of the database
-- {limit}     the most sessions at once; -1 for no limit
-- {verifier}  the SCRAM verifier of its password
CREATE ROLE {role} NOLOGIN NOSUPERUSER NOINHERIT NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS
    CONNECTION LIMIT {limit} PASSWORD {verifier};
GRANT {group} TO {role} WITH INHERIT FALSE, SET FALSE

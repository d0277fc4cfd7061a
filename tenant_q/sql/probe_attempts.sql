-- What a probe attempts as a tenant's role; the server must refuse each. A line of three hyphens is the title of the statements below
-- it, which are one transaction that is rolled back. Words in brackets: [empty]: it is refused if it returns no row; [login]: only where
-- the role logs in itself, because under "role" a task can undo the switch; a code: the server may also refuse it with this
-- SQLSTATE; [nowait]: it does not wait for a lock, so that a lock of others shows that the server would have given it.
-- An attempt for which a parameter is missing is left out.
--
-- {own}, {own_table}, {own_schedules}  the schema of the tenant, a table of it, and its table of schedules
-- {other}, {other_table}, {column}, {other_sequence}  the schema of another tenant, a table of it, a column of that, a sequence
-- {bare_table}      {other_table} without its schema
-- {text}, {sequence_text}, {name}, {table_name}, {role_text}  {other_table}, {other_sequence}, {other}, {bare_table} and {other_role}
--                   as literals
-- {other_role}      the role of the other tenant
-- {public}, {unlisted}, {unlisted_column}  the public schema, a table of it that is not shared, a column of that
-- {role}            the role of the tenant
-- {owner}           the role of the project
-- {group}           the group of all tenants' roles
-- {superuser}       the superuser that the server was created with
-- {database}        the database
-- {backend}         the process of a session of the owner
-- {large_object}    the OID of a large object that belongs to none of the tenants' roles

--- read another tenant's table
SELECT 1 FROM {other_table} LIMIT 1
--- read another tenant's table by a subquery
SELECT 1 WHERE EXISTS (SELECT FROM {other_table})
--- read another tenant's table by a cursor
DECLARE tenant_q_probe CURSOR FOR SELECT 1 FROM {other_table}
--- read another tenant's table in a block
DO $$ BEGIN EXECUTE 'SELECT 1 FROM ' || {text}; END $$
--- read another tenant's table by a temporary view
CREATE TEMPORARY VIEW tenant_q_probe AS SELECT 1 AS one FROM {other_table}; SELECT one FROM tenant_q_probe
--- read another tenant's table by a temporary function
CREATE FUNCTION pg_temp.tenant_q_probe() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER AS
    $$ BEGIN EXECUTE 'SELECT 1 FROM ' || {text}; RETURN 1; END $$; SELECT pg_temp.tenant_q_probe()
--- read another tenant's table by the search path [42P01]
SET LOCAL search_path TO {other}; SELECT 1 FROM {bare_table} LIMIT 1
--- read another tenant's statistics [empty]
SELECT 1 FROM pg_catalog.pg_stats WHERE schemaname = {name} AND tablename = {table_name} LIMIT 1
--- read all statistics
SELECT 1 FROM pg_catalog.pg_statistic LIMIT 1
--- read all extended statistics
SELECT 1 FROM pg_catalog.pg_statistic_ext_data LIMIT 1
--- read the statements of the owner's sessions [empty]
SELECT 1 FROM pg_catalog.pg_stat_activity WHERE pid = {backend} AND query <> '<insufficient privilege>'
--- read another tenant's sequence
SELECT last_value FROM {other_sequence}
--- read a table of the public schema
SELECT 1 FROM {unlisted} LIMIT 1
--- read the passwords of roles
SELECT rolpassword FROM pg_catalog.pg_authid LIMIT 1
--- read all large objects
SELECT 1 FROM pg_catalog.pg_largeobject LIMIT 1
--- read the passwords of foreign servers
SELECT umoptions FROM pg_catalog.pg_user_mapping LIMIT 1
--- read the server's rules for logins
SELECT 1 FROM pg_catalog.pg_hba_file_rules LIMIT 1
--- copy a table of another tenant to a file
COPY {other_table} TO '/dev/null'

--- insert into another tenant's table
INSERT INTO {other_table} DEFAULT VALUES
--- update another tenant's table
UPDATE {other_table} SET {column} = {column} WHERE false
--- delete from another tenant's table
DELETE FROM {other_table} WHERE false
--- merge into another tenant's table
MERGE INTO {other_table} AS t USING (SELECT 1) AS s (n) ON false WHEN NOT MATCHED THEN DO NOTHING WHEN MATCHED THEN DELETE
--- truncate another tenant's table
TRUNCATE {other_table}
--- take a number from another tenant's sequence
SELECT pg_catalog.nextval({sequence_text})
--- set another tenant's sequence
SELECT pg_catalog.setval({sequence_text}, 1)
--- insert into a table of the public schema
INSERT INTO {unlisted} DEFAULT VALUES
--- update a table of the public schema
UPDATE {unlisted} SET {unlisted_column} = {unlisted_column} WHERE false
--- delete from a table of the public schema
DELETE FROM {unlisted} WHERE false
--- copy a file into another tenant's table
COPY {other_table} FROM '/dev/null'
--- drop another tenant's table
DROP TABLE {other_table}
--- change another tenant's table
ALTER TABLE {other_table} DISABLE TRIGGER ALL
--- take another tenant's table
ALTER TABLE {other_table} OWNER TO CURRENT_USER
--- drop another tenant's schema
DROP SCHEMA {other} CASCADE
--- rename another tenant's schema
ALTER SCHEMA {other} RENAME TO tenant_q_probe
--- open a table of the public schema to all
GRANT SELECT ON {unlisted} TO PUBLIC
--- use another tenant's type
CREATE TEMPORARY TABLE tenant_q_probe (one {other_table})

--- lock another tenant's table for reading [nowait]
LOCK TABLE {other_table} IN ACCESS SHARE MODE NOWAIT
--- lock another tenant's table [nowait]
LOCK TABLE {other_table} IN ACCESS EXCLUSIVE MODE NOWAIT
--- lock rows of another tenant's table [nowait]
SELECT 1 FROM {other_table} FOR UPDATE NOWAIT
--- lock a table of the public schema [nowait]
LOCK TABLE {unlisted} IN SHARE ROW EXCLUSIVE MODE NOWAIT
--- lock the catalogue [nowait]
LOCK TABLE pg_catalog.pg_class IN ACCESS EXCLUSIVE MODE NOWAIT

--- create a table in another tenant's schema
CREATE TABLE {other}.tenant_q_probe (id int)
--- create a table in the public schema
CREATE TABLE {public}.tenant_q_probe (id int)
--- create a function in the public schema
CREATE FUNCTION {public}.tenant_q_probe() RETURNS int LANGUAGE sql AS 'SELECT 1'
--- create a type in the public schema
CREATE TYPE {public}.tenant_q_probe AS ENUM ('one')
--- create a table in the own schema
CREATE TABLE {own}.tenant_q_probe (id int)
--- create a function in the own schema
CREATE FUNCTION {own}.tenant_q_probe() RETURNS int LANGUAGE sql AS 'SELECT 1'
--- change a table of the own schema
ALTER TABLE {own_table} ADD COLUMN tenant_q_probe int
--- drop a table of the own schema
DROP TABLE {own_table}
--- truncate a table of the own schema
TRUNCATE {own_table}
--- create a schema
CREATE SCHEMA tenant_q_probe
--- create a publication
CREATE PUBLICATION tenant_q_probe
--- create a foreign-data wrapper
CREATE FOREIGN DATA WRAPPER tenant_q_probe
--- create an access method
CREATE ACCESS METHOD tenant_q_probe TYPE INDEX HANDLER pg_catalog.bthandler

--- put a trigger on a table of the own schema
CREATE TRIGGER tenant_q_probe BEFORE UPDATE ON {own_table} FOR EACH ROW
    EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()
--- put a trigger that writes for another tenant on a temporary table
CREATE TEMPORARY TABLE tenant_q_probe (id int);
CREATE FUNCTION pg_temp.tenant_q_probe() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN EXECUTE 'DELETE FROM ' || {text} || ' WHERE false'; RETURN NEW; END $$;
CREATE TRIGGER tenant_q_probe BEFORE INSERT ON tenant_q_probe FOR EACH ROW EXECUTE FUNCTION pg_temp.tenant_q_probe();
INSERT INTO tenant_q_probe VALUES (1)
--- put the trigger of the due index on a temporary table
CREATE TEMPORARY TABLE django_q_schedule (LIKE {own_schedules} INCLUDING DEFAULTS);
CREATE TRIGGER tenant_q_probe AFTER INSERT ON pg_temp.django_q_schedule FOR EACH ROW
    EXECUTE FUNCTION {public}.tenant_q_index_schedule({name})
--- put a rule that writes for another tenant on a temporary table
CREATE TEMPORARY TABLE tenant_q_probe (id int);
CREATE RULE tenant_q_probe AS ON INSERT TO tenant_q_probe DO ALSO DELETE FROM {other_table};
INSERT INTO tenant_q_probe VALUES (1)
--- let a temporary table inherit from another tenant's table
CREATE TEMPORARY TABLE tenant_q_probe () INHERITS ({other_table})
--- let a temporary table refer to another tenant's table
CREATE TEMPORARY TABLE tenant_q_probe (id int REFERENCES {other_table})
--- fire no triggers
SET LOCAL session_replication_role TO replica

--- use another tenant's schema
SELECT {text}::pg_catalog.regclass
--- call a function that only superusers have, by a function of its own
CREATE FUNCTION pg_temp.tenant_q_probe(text) RETURNS text LANGUAGE internal AS 'pg_read_file'
--- load code into the server by a function
CREATE FUNCTION pg_temp.tenant_q_probe() RETURNS int LANGUAGE c AS 'tenant_q_probe'
--- load a library into the server
LOAD 'tenant_q_probe'
--- cancel a statement of the owner
SELECT pg_catalog.pg_cancel_backend({backend})
--- read the server's log
SELECT 1 FROM pg_catalog.pg_ls_logdir() LIMIT 1

--- read a file of the server
SELECT pg_catalog.pg_read_file('PG_VERSION')
--- read a file of the server as bytes
SELECT pg_catalog.pg_read_binary_file('PG_VERSION')
--- list a directory of the server
SELECT pg_catalog.pg_ls_dir('.')
--- look at a file of the server
SELECT pg_catalog.pg_stat_file('PG_VERSION')
--- copy a file of the server into a table
COPY {own_table} FROM '/dev/null'
--- copy a table into a file of the server
COPY (SELECT 1) TO '/dev/null'
--- read from a program on the server
COPY {own_table} FROM PROGRAM 'true'
--- write to a program on the server
COPY (SELECT 1) TO PROGRAM 'true'
--- import a file of the server as a large object
SELECT pg_catalog.lo_import('/dev/null')
--- export a large object to a file of the server
SELECT pg_catalog.lo_export(0, '/dev/null')
--- read a large object of another role
SELECT pg_catalog.lo_get({large_object})
--- open a large object of another role
SELECT pg_catalog.lo_open({large_object}, 262144)
--- write a large object of another role
SELECT pg_catalog.lo_put({large_object}, 0, '')
--- delete a large object of another role
SELECT pg_catalog.lo_unlink({large_object})
--- take a large object of another role
ALTER LARGE OBJECT {large_object} OWNER TO CURRENT_USER

--- switch to another tenant's role [login]
SET LOCAL ROLE {other_role}
--- switch to another tenant's role by a function [login]
SELECT pg_catalog.set_config('role', {role_text}, true)
--- switch to the owner [login]
SET LOCAL ROLE {owner}
--- switch to the group of all tenants' roles [login]
SET LOCAL ROLE {group}
--- switch to a superuser [login]
SET LOCAL ROLE {superuser}
--- switch to the role that reads everything [login]
SET LOCAL ROLE pg_read_all_data
--- become another tenant [login]
SET LOCAL SESSION AUTHORIZATION {other_role}
--- become a superuser [login]
SET LOCAL SESSION AUTHORIZATION {superuser}
--- create a role
CREATE ROLE tenant_q_probe
--- become a superuser by an attribute
ALTER ROLE {role} SUPERUSER
--- get the right to create roles
ALTER ROLE {role} CREATEROLE
--- get the rights of the owner
GRANT {owner} TO {role}
--- get the rights of another tenant
GRANT {other_role} TO {role}
--- get the rights of the group of all tenants' roles
GRANT {group} TO {role} WITH INHERIT TRUE
--- change the password of another tenant
ALTER ROLE {other_role} PASSWORD NULL
--- change the settings of another tenant
ALTER ROLE {other_role} SET search_path TO {own}
--- change the settings of all roles
ALTER ROLE ALL SET search_path TO {own}
--- change the settings of the database
ALTER DATABASE {database} SET search_path TO {own}
--- change what the owner grants in future
ALTER DEFAULT PRIVILEGES FOR ROLE {owner} GRANT SELECT ON TABLES TO {role}
--- drop what another tenant owns
DROP OWNED BY {other_role}
--- take what another tenant owns
REASSIGN OWNED BY {other_role} TO {role}
--- drop another tenant's role
DROP ROLE {other_role}

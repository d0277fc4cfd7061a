-- Mark the role of a tenant, whose login was refused or whose settings deviate, for its repair, and notify the
-- schedulers when the mark commits. A role whose password was changed meanwhile is left as it is.
--
-- {table}    tenant_q_tenantrole
-- {channel}  the channel of the notification; its payload is the schema
-- {schema}   the tenant's schema
-- {version}  the version of the password that was refused
-- {problem}  why, for operators
-- Returns    a row if the role is marked now, and was not before
WITH marked AS (
    UPDATE {table} SET state = 'repair', problem = {problem}
    WHERE schema_name OPERATOR(pg_catalog.=) {schema} AND version OPERATOR(pg_catalog.=) {version}
        AND state OPERATOR(pg_catalog.=) 'active'
    RETURNING schema_name
)
SELECT pg_catalog.pg_notify({channel}, schema_name::pg_catalog.text) FROM marked

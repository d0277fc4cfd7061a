-- Let one transaction at a time admit runs of a tenant.
--
-- %s  a number that stands for the tenant
SELECT pg_advisory_xact_lock(%s)

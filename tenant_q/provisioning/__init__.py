"""Create, change and remove tenants with their database roles.

Workers and the scheduler import nothing from here unless `TENANT_Q["isolation"]` needs roles.
"""

"""Create, change and remove tenants with their database roles.

Workers and the scheduler import nothing from here unless `TENANT_Q["isolation"]` needs roles.
"""

from tenant_q.provisioning.decommission import Decommissioned, decommission_tenant

__all__ = ["Decommissioned", "decommission_tenant"]

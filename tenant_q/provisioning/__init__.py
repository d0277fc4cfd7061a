"""Create, change and remove tenants with their database roles.

Workers and the scheduler import nothing from here unless `TENANT_Q["isolation"]` needs roles.
"""

from tenant_q.provisioning.connection_limit import apply_connection_limit
from tenant_q.provisioning.repair import Repairs, repair_marked, repair_tenant
from tenant_q.provisioning.rotate import Rotation, Rotations, count_to_rotate, rotate_all, rotate_tenant

__all__ = [
    "Repairs",
    "Rotation",
    "Rotations",
    "apply_connection_limit",
    "count_to_rotate",
    "repair_marked",
    "repair_tenant",
    "rotate_all",
    "rotate_tenant",
]

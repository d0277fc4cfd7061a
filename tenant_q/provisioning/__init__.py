"""Create, change and remove tenants with their database roles.

Workers and the scheduler import nothing from here unless `TENANT_Q["isolation"]` needs roles.
"""

from tenant_q.provisioning.admin_connection import sessions_for_many
from tenant_q.provisioning.connection_limit import apply_connection_limit
from tenant_q.provisioning.decommission import Decommissioned, decommission_tenant
from tenant_q.provisioning.probe import Finding, ProbeReport, Problem, probe_tenants
from tenant_q.provisioning.provision import provision_tenant
from tenant_q.provisioning.repair import Repairs, repair_marked, repair_tenant
from tenant_q.provisioning.rotate import Rotation, Rotations, count_to_rotate, rotate_all, rotate_tenant
from tenant_q.provisioning.tenant_credentials import TenantCredentials

__all__ = [
    "Decommissioned",
    "Finding",
    "ProbeReport",
    "Problem",
    "Repairs",
    "Rotation",
    "Rotations",
    "TenantCredentials",
    "apply_connection_limit",
    "count_to_rotate",
    "decommission_tenant",
    "probe_tenants",
    "provision_tenant",
    "repair_marked",
    "repair_tenant",
    "rotate_all",
    "rotate_tenant",
    "sessions_for_many",
]

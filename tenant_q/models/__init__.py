"""The tables of tenant_q, all of them in the public schema."""

from tenant_q.models.audit import AuditRecord
from tenant_q.models.code_schedules import CodeSchedule, ScheduleRelease, SyncedTenant
from tenant_q.models.due_schedules import DueSchedule, IndexedSchema
from tenant_q.models.failures import Failure, IndexedFailures
from tenant_q.models.group_parts import GroupPart
from tenant_q.models.pages import Cluster, DeadTask, FailedTask, LiveTask, Overview, SiteOverview
from tenant_q.models.policies import LEAST_WEIGHT, MOST_WEIGHT, TenantPolicy, validate_weight
from tenant_q.models.tenant_roles import TenantOperation, TenantRole
from tenant_q.models.tenants import TenantConfiguration, TenantRecord
from tenant_q.models.workflows import BrokerEpoch, DueWorkflow, IndexedRuns

__all__ = [
    "LEAST_WEIGHT",
    "MOST_WEIGHT",
    "AuditRecord",
    "BrokerEpoch",
    "Cluster",
    "CodeSchedule",
    "DeadTask",
    "DueSchedule",
    "DueWorkflow",
    "FailedTask",
    "Failure",
    "GroupPart",
    "IndexedFailures",
    "IndexedRuns",
    "IndexedSchema",
    "LiveTask",
    "Overview",
    "ScheduleRelease",
    "SiteOverview",
    "SyncedTenant",
    "TenantConfiguration",
    "TenantOperation",
    "TenantPolicy",
    "TenantRecord",
    "TenantRole",
    "validate_weight",
]

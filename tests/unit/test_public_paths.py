"""The import paths that projects use stay, wherever the modules behind them are."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import tenant_q

PATHS = [
    "tenant_q.admin",
    "tenant_q.audit.record",
    "tenant_q.authorization.authorize",
    "tenant_q.authorization.restrict_to",
    "tenant_q.authorization.tenant_token",
    "tenant_q.brokers.get_broker",
    "tenant_q.conf.conf",
    "tenant_q.custom.AsyncTask",
    "tenant_q.custom.Chain",
    "tenant_q.custom.Iter",
    "tenant_q.environment.settings",
    "tenant_q.exceptions.CancelException",
    "tenant_q.exceptions.TenantQError",
    "tenant_q.logging.TenantFilter",
    "tenant_q.middleware.RestrictToTenant",
    "tenant_q.models.AuditRecord",
    "tenant_q.models.TenantConfiguration",
    "tenant_q.models.TenantPolicy",
    "tenant_q.policies.change",
    "tenant_q.policies.configure",
    "tenant_q.signals.tenant_entered",
    "tenant_q.exceptions.TaskFailed",
    "tenant_q.states.CurrentTask",
    "tenant_q.states.Progress",
    "tenant_q.states.State",
    "tenant_q.tenancy.TenantConfig",
    "tenant_q.tenancy.config",
    "tenant_q.tenancy.in_public",
    "tenant_q.tenancy.in_schema",
    "tenant_q.tenancy.restriction",
    "tenant_q.tenancy.validate_schema_name",
    "tenant_q.utils.QUtilities",
    "tenant_q.views.metrics",
]
# Public, or Django expects it there; everything else is in a folder.
AT_THE_ROOT = 15


@pytest.mark.parametrize("path", PATHS)
def test_a_public_path_stays(path):
    module, _, name = path.rpartition(".")
    assert hasattr(importlib.import_module(module), name)


def test_only_public_modules_are_at_the_root():
    assert len(list(Path(tenant_q.__file__).parent.glob("*.py"))) <= AT_THE_ROOT

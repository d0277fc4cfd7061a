"""Find out whether the roles of tenants can reach anything outside of their schemas."""

from tenant_q.provisioning.probe.probing import probe_tenants
from tenant_q.provisioning.probe.report import Finding, Problem, ProbeReport

__all__ = ["Finding", "Problem", "ProbeReport", "probe_tenants"]

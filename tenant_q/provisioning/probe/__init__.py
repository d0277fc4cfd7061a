"""Find out whether the roles of tenants can reach anything outside of their schemas."""

from tenant_q.provisioning.probe.probing import probe_tenants
from tenant_q.provisioning.probe.report import Finding, ProbeReport, Problem

__all__ = ["Finding", "ProbeReport", "Problem", "probe_tenants"]

"""A delivery: a package that a worker received, with the lease under which the worker may run it."""

from __future__ import annotations

from dataclasses import dataclass

from tenant_q.brokers.protocol import Lease
from tenant_q.exceptions import BadPackage
from tenant_q.package.envelope import open_package
from tenant_q.package.package import Package


@dataclass(frozen=True, slots=True)
class Delivery:
    """A package that a worker received, and its lease."""

    lease: Lease
    package: Package

    @property
    def attempt(self) -> int:
        """The number of the attempt that this delivery starts, counted from 1."""
        return self.package.failures + (self.lease.starts or 0) + 1

    @property
    def original(self) -> Package:
        """The package as it was delivered: a task may change its arguments, even into values that do not pickle."""
        try:
            return open_package(self.lease.payload)
        except BadPackage:
            return self.package

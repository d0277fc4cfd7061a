"""How long the outcomes of a tenant are kept: by the settings, and by the tenant's policy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from django.db.models import Q

from tenant_q.conf import conf
from tenant_q.models import TenantPolicy
from tenant_q.tenancy import as_owner_in_public, database_alias, detect_outages


@dataclass(frozen=True, slots=True)
class Kept:
    """The values of a tenant's policy about how long its outcomes are kept. None: as the settings say."""

    max_results: int | None = None
    success_days: float | None = None
    max_failures: int | None = None
    failure_days: float | None = None


NO_KEPT = Kept()
_NAMES = tuple(field.name for field in fields(Kept))
_ADDED = tuple(name for name in _NAMES if name != "max_results")


@dataclass(frozen=True, slots=True)
class Limits:
    """How long outcomes of one kind are kept: the newest `rows` of them, and none older than `age`. None: no limit."""

    rows: int | None = None
    age: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """How long the outcomes of one tenant are kept.

    Attributes:
        successes: The limits of successes.
        failures: The limits of failures.
        spares_schedules: Whether the row of the last run of each schedule stays, whatever the limits. It does not where
            `save_limit` is the only limit, as in Django-Q2.
    """

    successes: Limits
    failures: Limits
    spares_schedules: bool

    def of(self, *, success: bool) -> Limits:
        """Return the limits of the retention for successes or for failures."""
        return self.successes if success else self.failures


def kept_of(policy: TenantPolicy | None) -> Kept:
    """Return what a tenant's policy says about how long its outcomes are kept."""
    return Kept(**{name: getattr(policy, name) for name in _NAMES}) if policy else NO_KEPT


def retention_of(schema: str) -> Retention:
    """Read how long the outcomes of a tenant are kept, by one statement. Raises `DatabaseAway`."""
    with detect_outages(), as_owner_in_public():
        found = _policies().filter(schema_name=schema).values(*_NAMES).first()
    return retention_by(Kept(**found) if found else NO_KEPT)


def site_keeps() -> bool:
    """Return whether the settings say how long the outcomes of every tenant are kept, other than by `save_limit`."""
    return bool(conf().keep_successes or conf().keep_failures)


def policies_that_keep() -> dict[str, Kept]:
    """Read the policies that say how long outcomes are kept, by schema, with one statement. Raises `DatabaseAway`.

    With `max_results` alone a policy is only among them if the settings have limits too: as ever, a worker prunes by it
    when the tenant saves results.
    """
    names = _NAMES if site_keeps() else _ADDED
    is_any = Q(*[(f"{name}__isnull", False) for name in names], _connector=Q.OR)
    with detect_outages(), as_owner_in_public():
        rows = list(_policies().filter(is_any).values("schema_name", *_NAMES))
    return {row.pop("schema_name"): Kept(**row) for row in rows}


def retention_by(kept: Kept) -> Retention:
    """Return how long the outcomes of a tenant are kept. What its policy says comes before the settings."""
    successes, failures = conf().keep_successes or {}, conf().keep_failures or {}
    return Retention(
        Limits(kept.max_results or _rows_of_successes(successes), _age(kept.success_days, successes)),
        Limits(kept.max_failures or failures.get("rows"), _age(kept.failure_days, failures)),
        spares_schedules=site_keeps() or any(getattr(kept, name) is not None for name in _ADDED),
    )


def _rows_of_successes(keep: Mapping[str, Any]) -> int | None:
    """Return the smaller one of the two limits of successes. The default of `save_limit` ends where `keep` is set."""
    is_in_force = not keep or "save_limit" in conf().q_cluster
    limits = [conf().save_limit if is_in_force else 0, keep.get("rows") or 0]
    return min((limit for limit in limits if limit > 0), default=None)


def _age(days: float | None, keep: Mapping[str, Any]) -> timedelta | None:
    days = keep.get("days") if days is None else days
    return None if days is None else timedelta(days=days)


def _policies() -> Any:
    return TenantPolicy.objects.using(database_alias())

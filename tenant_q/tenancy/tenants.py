"""Which tenants there are, and which are ready: looked up through a cache of `tenant_cache_seconds`."""

from __future__ import annotations

import copy
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.apps import apps
from django.core.exceptions import ValidationError
from django.db.models.functions import Lower
from django.utils.module_loading import import_string

from tenant_q.conf import conf
from tenant_q.exceptions import TenantNotReady, UnknownTenant
from tenant_q.support.forks import no_return
from tenant_q.tenancy.connection import is_lost, told_when_away, words
from tenant_q.tenancy.names import validate_schema_name
from tenant_q.tenancy.seam import (
    database_alias,
    in_public,
    lists_app,
    physical_schema,
    public_schema,
    shared_apps,
    tenant_connection,
    tenant_model,
)


@dataclass(frozen=True, slots=True)
class _Known:
    """A tenant as it was looked up at the moment `since` (monotonic). `unready` is why it is not to be served yet."""

    since: float
    tenant: Any
    unready: str | None


_known: dict[str, _Known] = {}
_folded: dict[str, str] = {}


def get_tenant(schema: str) -> Any:
    """The tenant with this schema name, from a cache of `tenant_cache_seconds`.

    Returns a copy of its own, so that a task that changes it changes nobody else's. Raises `UnknownTenant`.
    """
    tenant = copy.copy(_look_up_cached(schema).tenant)
    for name, value in vars(tenant).items():
        if isinstance(value, dict | list | set):  # of a JSON field, say
            setattr(tenant, name, copy.deepcopy(value))
    return tenant


def known_tenant(schema: str) -> Any:
    """The tenant as the cache holds it, not to be handed out; None where it holds none."""
    entry = _known.get(schema)
    return entry and entry.tenant


def cached_key(schema: str) -> str:
    """Return the primary key of the tenant with this schema name, as text, from the cache. Raises `UnknownTenant`."""
    return str(_look_up_cached(schema).tenant.pk)


def require_known(schema: str) -> None:
    """Raise `UnknownTenant` when no tenant has that schema name."""
    _look_up_cached(schema)


def require_ready(schema: str) -> None:
    """Raise `TenantNotReady` if `TENANT_Q["ready_tenants"]` excludes the tenant, `UnknownTenant` if there is none.

    The public schema may have no tenant.
    """
    try:
        _look_up_cached(schema)
    except UnknownTenant:
        if schema == public_schema():
            return
        raise
    # That it is not ready is not remembered: it may be by now.
    if _look_up_cached(schema).unready and (unready := _look_up_cached(schema, 0).unready):
        raise TenantNotReady(unready)


def refresh_tenant(schema: str, seconds: float) -> None:
    """Look a tenant up anew if what the cache holds is older than `seconds`. Raises as `get_tenant`."""
    _look_up_cached(schema, seconds)


def look_up_together(schemas: Iterable[str]) -> None:
    """Look up the tenants of several schemas at once, if their time in the cache is over.

    Those that are not ready, not found or folded are left to a look-up of their own, which tells why.
    """
    # Early enough that no entry expires while the batch runs, which would be a look-up for each.
    now, limit = time.monotonic(), conf().tenant_cache_seconds / 2
    wanted = [
        name
        for name in schemas
        if name == physical_schema(name) and (name not in _known or now - _known[name].since > limit)
    ]
    if not wanted:
        return
    with told_when_away(), in_public():
        try:
            named = _tenants().filter(schema_name__in=wanted)
            ready = set(_ready(named).values_list("schema_name", flat=True)) if conf().ready_tenants else set(wanted)
            found = list(named)
        except Exception:  # the project's function fails, say: each tenant's own look-up reports it
            if is_lost(tenant_connection()):
                raise
            return
    for tenant in found:
        if tenant.schema_name in ready:
            _known[tenant.schema_name] = _Known(now, _as_handed_out(tenant), None)
            _folded[tenant.schema_name] = tenant.schema_name


def tenants_to_schedule() -> list[str]:
    """The schema names the scheduler serves: all tenants' but the excluded ones.

    Raises `TenantNotReady` when the project's `ready_tenants` fails.
    """
    with told_when_away(), in_public():
        try:
            names = set(_ready(_tenants()).values_list("schema_name", flat=True))
        except Exception as error:
            if is_lost(tenant_connection()):
                raise
            path = conf().ready_tenants
            raise TenantNotReady(f"TENANT_Q['ready_tenants'] ({path}) fails: {words(error)}; correct it.") from error
        return sorted(names - conf().excluded_schemas)


def logical_schema(physical: str) -> str:
    """The tenant's own name of a PostgreSQL schema, which may be folded. Raises `UnknownTenant`, `DatabaseAway`."""
    if apps.is_installed("django_tenants"):
        return physical
    if physical not in _folded:
        with told_when_away(), in_public():
            names = list(_tenants().filter(schema_name__iexact=physical).values_list("schema_name", flat=True))
        if not names and physical == physical_schema(public_schema()):
            return public_schema()
        if not names:
            raise UnknownTenant(_why_unknown(physical))
        _folded[physical] = physical if physical in names else names[0]
    return _folded[physical]


def scheduled_among(physical: Collection[str]) -> set[str]:
    """Those of some PostgreSQL schemas that are a tenant's, or the public one where `django_q` is shared.

    One statement. Raises `DatabaseAway`.
    """
    shared = {public_schema()} if lists_app(shared_apps(), "django_q") else set()
    wanted = sorted(set(physical) - {public_schema()})
    if not wanted:
        return shared & set(physical)
    with told_when_away(), in_public():
        rows = _tenants()
        if not apps.is_installed("django_tenants"):
            rows = rows.annotate(folded=Lower("schema_name")).filter(folded__in=wanted)
        else:
            rows = rows.filter(schema_name__in=wanted)
        return {physical_schema(name) for name in rows.values_list("schema_name", flat=True)} | (shared & set(physical))


def tenant_count() -> int:
    """How many tenants there are, the public one not counted."""
    with in_public():
        return int(_tenants().exclude(schema_name=public_schema()).count())


def tenant_names() -> list[str]:
    """The schema names of all tenants, the public one not among them. One statement. Raises `DatabaseAway`."""
    with told_when_away(), in_public():
        return list(_tenants().exclude(schema_name=public_schema()).values_list("schema_name", flat=True))


def _look_up_cached(schema: str, seconds: float | None = None) -> _Known:
    limit = conf().tenant_cache_seconds if seconds is None else seconds
    entry = _known.get(schema)
    if entry is None or time.monotonic() - entry.since > limit:
        entry = _known[schema] = _look_up(schema)
    return entry


def _look_up(schema: str) -> _Known:
    _known.pop(schema, None)
    with told_when_away(), in_public():
        named = _tenants().filter(schema_name=schema)
        found = named.first()
        if found is None:
            raise UnknownTenant(_why_unknown(schema))
        _refuse_folded(schema)
        return _Known(time.monotonic(), _as_handed_out(found), _why_unready(named, schema))


def _as_handed_out(tenant: Any) -> Any:
    """A copy, for Django notes in one that it is: so that those that are handed out equal this."""
    return copy.copy(tenant)


def _refuse_folded(schema: str) -> None:
    """`django-tenant-schemas` folds names, so one with capitals may be where another tenant's tables are."""
    folded = physical_schema(schema)
    others = _tenants().filter(schema_name__iexact=schema).exclude(schema_name=schema)
    if folded != schema and others.exists():
        raise UnknownTenant(f"Tenant {schema!r} shares the schema {folded!r} with another; rename one of them.")


def _why_unready(named: Any, schema: str) -> str | None:
    path = conf().ready_tenants
    if not path:
        return None
    try:
        if _ready(named).exists():
            return None
    except Exception as error:
        if is_lost(tenant_connection()):
            raise
        return f"TENANT_Q['ready_tenants'] ({path}) fails for tenant {schema!r}: {words(error)}; correct it."
    return f"Tenant {schema!r} is not among those that {path} lets through yet; it waits until it is."


def _why_unknown(schema: str) -> str:
    try:
        validate_schema_name(schema)
    except ValidationError as error:
        return f"No tenant can have this schema name: {' '.join(error.messages)}"
    return f"No tenant has the schema name {schema!r}; create it, or name one that {tenant_model().__name__} lists."


def _tenants() -> Any:
    return tenant_model()._default_manager.using(database_alias())


def _ready(tenants: Any) -> Any:
    """Those of a queryset of tenants that the project's `TENANT_Q["ready_tenants"]` lets through."""
    path = conf().ready_tenants
    with no_return():
        return import_string(path)(tenants) if path else tenants


def forget() -> None:
    """The next look-up asks the database."""
    _known.clear()
    _folded.clear()

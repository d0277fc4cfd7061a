"""Write and read the records of tenants, which outlive the tenants: when each was created, renamed and deleted."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.apps import apps
from django.db.models import Exists, OuterRef, TextField
from django.db.models.functions import Cast
from django.utils import timezone

from tenant_q.tenancy.connection import detect_outages
from tenant_q.tenancy.tenancy_package import (
    as_owner_in_public,
    database_alias,
    public_has_tasks,
    public_schema,
    tenant_model,
)

# The moment when a tenant was created, by its key; it never changes.
_since: dict[str, datetime | None] = {}
_MOST_REMEMBERED = 10_000


def _records() -> Any:
    # Their model belongs to a higher layer, so it is found by name.
    return apps.get_model("tenant_q", "TenantRecord")._default_manager.using(database_alias())


def note_existing(model: Any) -> None:
    """Make the records of the tenants that have none.

    If a deleted tenant had the same name, the new tenant is recorded as created now, otherwise as older than every
    package.

    Args:
        model: The model of the records, which a migration has in an earlier form.
    """
    with detect_outages(), as_owner_in_public():
        records = model._default_manager.using(database_alias())
        recorded = records.filter(key=OuterRef("tenant_q_key"))
        missing = list(_tenants_with_keys().filter(~Exists(recorded)).values_list("schema_name", "tenant_q_key"))
        if not missing:
            return
        left = records.filter(schema_name__in=[schema for schema, _ in missing]).exclude(deleted=None)
        replaced = set(left.values_list("schema_name", flat=True))
        made = [
            model(key=key, schema_name=schema, since=timezone.now() if schema in replaced else None)
            for schema, key in missing
        ]
        records.bulk_create(made, ignore_conflicts=True)


def deleted_tenants() -> list[tuple[str, str]]:
    """Return the schema and key of each tenant that has a record, but no row any more. Raises `DatabaseAway`."""
    with detect_outages(), as_owner_in_public():
        rows = _tenants_with_keys().filter(tenant_q_key=OuterRef("key"))
        return list(_records().filter(~Exists(rows), deleted=None).values_list("schema_name", "key"))


def restored_tenants() -> list[str]:
    """Return the keys of the tenants that are recorded as deleted, but have a row again. Raises `DatabaseAway`."""
    with detect_outages(), as_owner_in_public():
        rows = _tenants_with_keys().filter(tenant_q_key=OuterRef("key"))
        return list(_records().exclude(deleted=None).filter(Exists(rows)).values_list("key", flat=True))


def _tenants_with_keys() -> Any:
    tenants = tenant_model()._default_manager.using(database_alias()).exclude(schema_name=public_schema())
    return tenants.annotate(tenant_q_key=Cast("pk", TextField()))


def created_at(schema: str, key: str) -> datetime | None:
    """Return from its record when a tenant was created; None if it is older than the records. Raises `DatabaseAway`."""
    return creations_of({schema: key})[schema]


def creations_of(keys: dict[str, str]) -> dict[str, datetime | None]:
    """Return from their records when several tenants were created, as `created_at` does, by one statement at most.

    Args:
        keys: The keys of the tenants, by schema.
    """
    missing = {key: schema for schema, key in keys.items() if key not in _since}
    if missing:
        with detect_outages(), as_owner_in_public():
            found = dict(_records().filter(key__in=missing).values_list("key", "since"))
            unrecorded = [schema for key, schema in missing.items() if key not in found]
            gone = _deleted_at(unrecorded) if unrecorded else {}
        if len(_since) > _MOST_REMEMBERED:
            _since.clear()
        _since.update(found)
        # A tenant without a record is not cached: its record will be made.
        return {schema: _since[key] if key in _since else gone.get(schema) for schema, key in keys.items()}
    return {schema: _since[key] for schema, key in keys.items()}


def _deleted_at(schemas: list[str]) -> dict[str, datetime]:
    """Return from the records when the last tenant with each of these names was deleted."""
    rows = _records().filter(schema_name__in=schemas).exclude(deleted=None).order_by("deleted")
    return dict(rows.values_list("schema_name", "deleted"))


def predates(moment: object, schema: str, key: str) -> bool:
    """Return whether a moment is earlier than the recorded creation of a tenant.

    What was made then and carries no key belongs to an earlier tenant of the same name.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    made = created_at(schema, key)
    if made is None:
        return False
    if not isinstance(moment, datetime):
        return True
    return moment.timestamp() < made.timestamp()  # regardless of USE_TZ at that time


def scope(schema: str, key: str, made: datetime | None) -> str:
    """Return the text that stands for a recorded tenant in the ids of its fires.

    For a tenant older than the records it is the schema name, so that an earlier version computes the same ids.
    """
    return schema if made is None else f"{schema}#{key}"


def names_of(key: str) -> list[str]:
    """Return the recorded schema names of a tenant, the present one first. Raises `DatabaseAway`."""
    with detect_outages(), as_owner_in_public():
        found = _records().filter(key=key, deleted=None).values_list("schema_name", "former_names").first()
    return [found[0], *found[1]] if found else []


def current_name(schema: str, key: str) -> str | None:
    """Return the present schema name of a tenant with `schema` among its recorded names, or None.

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    names = names_of(key)
    if schema not in names:
        return None
    with detect_outages(), as_owner_in_public():
        tenants = tenant_model()._default_manager.using(database_alias())
        return names[0] if tenants.filter(pk=key, schema_name=names[0]).exists() else None


def successor_of_public() -> tuple[str, str] | None:
    """Return the schema name and key of the tenant that has the tasks of the public schema since they were moved.

    It has the public schema among its former names. None if there is no such tenant, or if the public schema has tasks
    of its own (again).

    Raises:
        DatabaseAway: The database cannot be reached.
    """
    if public_has_tasks():
        return None
    with detect_outages(), as_owner_in_public():
        rows = _tenants_with_keys().filter(tenant_q_key=OuterRef("key"), schema_name=OuterRef("schema_name"))
        moved = _records().filter(Exists(rows), former_names__contains=[public_schema()], deleted=None)
        found: tuple[str, str] | None = moved.values_list("schema_name", "key").order_by("pk").last()
        return found


def forget() -> None:
    """Forget what was read from the records of tenants."""
    _since.clear()

"""The indexes in the public schema of what tenants' tables hold: schedules, failures, and what installed apps add."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from tenant_q import tenancy


@dataclass(frozen=True, slots=True)
class SchemaIndex:
    """An index of one table of every tenant, which triggers on these tables keep up to date.

    Attributes:
        what: What the table holds, for messages.
        app: The name of the app to which the table belongs.
        table: The table in the tenants' schemas.
        entries: The table of the entries, in the public schema.
        known: The table of the schemas that are in the index, in the public schema.
        trigger: The name of the triggers' function.
        install_triggers: The name of the function that puts the triggers on a schema's table.
        install: The name of the function that puts a schema into the index.
        forget: The name of the function that takes a schema out of the index.
        stale: The name of the function that finds the schemas that differ from the index.
        errors: The name of the function that counts what is wrong about a schema.
        tenants_among: A function that returns which schemas may have such a table: those of tenants.
        others: Other tables in the public schema that a cluster writes to for this index.
        calls: Other functions of this index that a cluster calls, with the types of their arguments.
    """

    what: str
    app: str
    table: str
    entries: str
    known: str
    trigger: str
    install_triggers: str
    install: str
    forget: str
    stale: str
    errors: str
    tenants_among: Callable[[Collection[str]], set[str]]
    others: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables in the public schema that a cluster reads and writes for the index."""
        return (self.entries, self.known, *self.others)

    @property
    def called(self) -> tuple[str, ...]:
        """The functions of the index that a cluster and the commands call, with the types of their arguments."""
        takes_schema = (self.forget, self.errors, self.install, self.install_triggers)
        return (*(f"{name}(text)" for name in takes_schema), f"{self.stale}()", *self.calls)


SCHEDULES = SchemaIndex(
    what="schedules",
    app="django_q",
    table="django_q_schedule",
    entries="tenant_q_dueschedule",
    known="tenant_q_indexedschema",
    trigger="tenant_q_index_schedule",
    install_triggers="tenant_q_install_triggers",
    install="tenant_q_install_index",
    forget="tenant_q_forget_schema",
    stale="tenant_q_stale_schemas",
    errors="tenant_q_index_errors",
    tenants_among=tenancy.scheduled_among,
)

FAILURES = SchemaIndex(
    what="failures",
    app="django_q",
    table="django_q_task",
    entries="tenant_q_failure",
    known="tenant_q_indexedfailures",
    trigger="tenant_q_index_failure",
    install_triggers="tenant_q_install_failure_triggers",
    install="tenant_q_install_failures",
    forget="tenant_q_forget_failures",
    stale="tenant_q_stale_failure_schemas",
    errors="tenant_q_failure_errors",
    tenants_among=tenancy.scheduled_among,
    calls=("tenant_q_sweep_failures(text, integer)",),
)

_others: list[SchemaIndex] = []


def register(index: SchemaIndex) -> None:
    """Register an index that an installed app adds: the scheduler keeps it up, and it follows deleted tenants."""
    if index not in _others:
        _others.append(index)


def all_indexes() -> tuple[SchemaIndex, ...]:
    """Return the indexes of schedules and failures, and those that installed apps have registered."""
    return (SCHEDULES, FAILURES, *_others)

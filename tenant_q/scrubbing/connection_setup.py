"""Note how a connection is set up, by the driver and by Django, and compare and restore it after a task.

This module does not list what a task could change. It lists the state that changes in normal use; a change of anything
else is detected, and so is anything that a task adds or registers.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter, itemgetter
from typing import Any

from django.db import connections
from django.utils.functional import cached_property
from psycopg.adapt import AdaptersMap

from tenant_q.scrubbing.psycopg_adapters import tables
from tenant_q.tenancy.connection import USED

# The attribute of either kind of connection with its noted setup.
NOTED = "_tenant_q_setup"

# State of a driver's connection, which changes in normal use. Autocommit is checked separately.
_RAW_STATE = frozenset({NOTED, USED, "_autocommit", "_num_transactions", "_begin_statement"})
_PREPARING = attrgetter("prepare_threshold", "prepared_max")
_HANDLERS = attrgetter("notice_handler", "notify_handler")
# State of Django's connection: its transaction, its errors, its tenant. Wrappers are checked separately.
_STATE = frozenset(
    {
        NOTED, "connection", "execute_wrappers", "queries_log", "run_on_commit", "isolation_level",
        "run_commit_hooks_on_set_autocommit_on", "autocommit", "in_atomic_block", "savepoint_state", "savepoint_ids",
        "atomic_blocks", "commit_on_exit", "needs_rollback", "rollback_exc", "closed_in_transaction", "errors_occurred",
        "close_at", "health_check_enabled", "health_check_done", "_thread_sharing_count",
        # of the tenancy packages
        "tenant", "schema_name", "include_public_schema", "search_path_set", "search_path_set_schemas",
        "_ts_last_path_sig", "_setting_search_path",
    }
)  # fmt: skip
_MISSING = object()


class RawSetup:
    """How a driver's connection was set up when it was noted."""

    def __init__(self, raw: Any) -> None:
        self._tables = tables(AdaptersMap(raw.adapters))
        has = vars(raw)
        names = [name for name in has if name not in _RAW_STATE]
        self._look = itemgetter(*names)
        self._values = tuple(list(has[name]) if type(has[name]) is list else has[name] for name in names)
        self._count = _count(has)
        self._handlers = _HANDLERS(raw.pgconn)
        self._preparing = _PREPARING(raw._prepared)

    def holds(self, raw: Any) -> bool:
        """Return whether the setup of the driver's connection is as noted."""
        has = vars(raw)
        try:
            return bool(
                self._look(has) == self._values
                and _count(has) == self._count
                and _PREPARING(raw._prepared) == self._preparing
                and _HANDLERS(raw.pgconn) == self._handlers
                and tables(raw.adapters) == self._tables
            )
        except (KeyError, AttributeError):  # an attribute is missing
            return False


def _count(has: dict[str, Any]) -> int:
    """Return the number of attributes in the setup of a driver's connection, without those that come and go."""
    return len(has) - (USED in has) - (NOTED in has)


class Setup:
    """How Django's connection was set up when it was noted."""

    def __init__(self, connection: Any) -> None:
        self._attributes = {name: value for name, value in vars(connection).items() if name not in _STATE}
        self._index(connection)

    def _index(self, connection: Any) -> None:
        self._look = itemgetter(*self._attributes)
        self._values = tuple(self._attributes.values())
        self._count = len(vars(connection))

    def holds(self, connection: Any) -> bool:
        """Return whether the setup of Django's connection is as noted."""
        has = vars(connection)
        try:
            return len(has) == self._count and bool(self._look(has) == self._values)
        except KeyError:  # an attribute is missing
            return False

    def restore(self, connection: Any) -> list[str]:
        """Restore the setup of Django's connection. Return the names of changed and added attributes."""
        if self.holds(connection):
            return []
        has = vars(connection)
        changed = [name for name, was in self._attributes.items() if has.get(name, _MISSING) is not was]
        added = [name for name in has if name not in self._attributes and name not in _STATE]
        for name in changed:
            has[name] = self._attributes[name]
        kept = [name for name in added if isinstance(getattr(type(connection), name, None), cached_property)]
        for name in set(added) - set(kept):
            del has[name]
        self._attributes.update({name: has[name] for name in kept})
        self._index(connection)
        return sorted(set(changed) | (set(added) - set(kept)))


class Settings:
    """The noted settings of all databases, with which connections are set up in all threads."""

    def __init__(self) -> None:
        self._noted = copied(connections.settings)

    def hold(self) -> bool:
        """Return whether the settings with which connections are set up are as noted."""
        now = connections.settings
        for alias, own in self._noted.items():
            if "SCHEMA" in now.get(alias, ()):  # where the tenancy packages keep the current schema
                own["SCHEMA"] = now[alias]["SCHEMA"]
        return bool(now == self._noted)

    def restore(self) -> list[str]:
        """Restore the settings with which connections are set up. Return the aliases of the changed databases."""
        if self.hold():
            return []
        now = connections.settings
        changed = sorted(alias for alias in {*now, *self._noted} if now.get(alias) != self._noted.get(alias))
        for alias in changed:
            if alias in self._noted:
                own = now.setdefault(alias, {})
                own.clear()
                own.update(copied(self._noted[alias]))
            else:
                del now[alias]
        return changed


def copied(value: Any) -> Any:
    """Return a copy of the settings of connections. Other values than dicts and lists are not copied."""
    if isinstance(value, Mapping):
        return {name: copied(one) for name, one in value.items()}
    return [copied(one) for one in value] if isinstance(value, list) else value

"""How a connection is set up, by the driver and by Django: noted before a task, compared and put back after it.

Nothing is listed that a task could change. What is listed is the state that changes in normal use; whatever else is
changed, added or registered shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

from django.db import connections
from django.utils.functional import cached_property
from psycopg.adapt import AdaptersMap

from tenant_q.adapters import tables
from tenant_q.tenancy.connection import USED

# The attribute of either kind of connection that holds what is noted of it.
NOTED = "_tenant_q_setup"

# State of a driver's connection: what was sent and received. Autocommit is looked at by itself.
_RAW_STATE = frozenset({NOTED, USED, "_autocommit", "_num_transactions", "_begin_statement"})
_PREPARING = attrgetter("prepare_threshold", "prepared_max")
# State of Django's: its transaction, its errors, its tenant. Wrappers are looked at by themselves.
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
    """What is noted of a driver's connection."""

    def __init__(self, raw: Any) -> None:
        self._tables = tables(AdaptersMap(raw.adapters))
        self._attributes = _attributes(raw)
        self._handlers = raw.pgconn.notice_handler, raw.pgconn.notify_handler
        self._preparing = _PREPARING(raw._prepared)

    def holds(self, raw: Any) -> bool:
        """Whether the connection is set up as it was."""
        return bool(
            _attributes(raw) == self._attributes
            and _PREPARING(raw._prepared) == self._preparing
            and (raw.pgconn.notice_handler, raw.pgconn.notify_handler) == self._handlers
            and tables(raw.adapters) == self._tables
        )


def _attributes(raw: Any) -> dict[str, Any]:
    return {
        name: list(value) if type(value) is list else value
        for name, value in vars(raw).items()
        if name not in _RAW_STATE
    }


class Setup:
    """What is noted of Django's connection."""

    def __init__(self, connection: Any) -> None:
        self._attributes = {name: value for name, value in vars(connection).items() if name not in _STATE}
        self._count = len(vars(connection))

    def holds(self, connection: Any) -> bool:
        """Whether the connection is set up as it was."""
        has = vars(connection)
        return len(has) == self._count and all(has.get(name, _MISSING) is was for name, was in self._attributes.items())

    def restore(self, connection: Any) -> list[str]:
        """Put back what was changed and take away what was added. Returns the names of those attributes."""
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
        self._count = len(has)
        return sorted(set(changed) | (set(added) - set(kept)))


class Settings:
    """What is noted of the settings of all databases. They are shared by the connections of all threads."""

    def __init__(self) -> None:
        self._noted = _copied(connections.settings)

    def hold(self) -> bool:
        """Whether they are as they were."""
        now = connections.settings
        for alias, own in self._noted.items():
            if "SCHEMA" in now.get(alias, ()):  # where the tenancy packages keep the current one
                own["SCHEMA"] = now[alias]["SCHEMA"]
        return bool(now == self._noted)

    def restore(self) -> list[str]:
        """Put back what was changed. Returns the aliases of those databases."""
        if self.hold():
            return []
        now = connections.settings
        changed = sorted(alias for alias in {*now, *self._noted} if now.get(alias) != self._noted.get(alias))
        for alias in changed:
            if alias in self._noted:
                own = now.setdefault(alias, {})
                own.clear()
                own.update(_copied(self._noted[alias]))
            else:
                del now[alias]
        return changed


def _copied(value: Any) -> Any:
    """A copy of dicts and lists, with what is in them as it is."""
    if isinstance(value, Mapping):
        return {name: _copied(one) for name, one in value.items()}
    return [_copied(one) for one in value] if isinstance(value, list) else value

"""The package of a task: Django-Q2's task dict plus `schema_name`. It is signed when it travels.

`build` makes a package from a call; `envelope` signs, checks and reads it; `outcome` describes what came of running it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tenant_q.conf import conf
from tenant_q.package.functions import counted_name, name_of, stored_name
from tenant_q.package.options import in_seconds, seconds_between

# The origin of a package: code of the project, the scheduler, or a person in an admin.
CODE, SCHEDULE, ADMIN = "code", "schedule", "admin"


@dataclass(frozen=True, slots=True)
class Package:
    """A read-only view of one task dict. `task` itself is what travels and what Django-Q2's signals are sent with."""

    task: dict[str, Any]

    @property
    def id(self) -> str:
        """The id of the package and of its task."""
        return str(self.task["id"])

    @property
    def key(self) -> tuple[str, str]:
        """The schema and id of the package, which identify it among those of all tenants."""
        return self.schema, self.id

    @property
    def name(self) -> str:
        """The name of the package's task."""
        return str(self.task["name"])

    @property
    def schema(self) -> str:
        """The schema name of the package's tenant."""
        return str(self.task["schema_name"])

    @property
    def tenant(self) -> str | None:
        """The key of the package's tenant: empty for the public schema, None if an earlier version built it."""
        tenant = self.task.get("tenant")
        return None if tenant is None else str(tenant)

    @property
    def func(self) -> Any:
        """The function of the package, or its dotted path."""
        return self.task["func"]

    @property
    def func_name(self) -> str:
        """The name of the package's function in the code, or the given text."""
        return name_of(self.task["func"])

    @property
    def stored_func(self) -> str:
        """The name of the package's function as a row stores it: with a remark if it does not identify the function."""
        return stored_name(self.task["func"])

    @property
    def counted_func(self) -> str:
        """The name under which runs of the package's function are counted and their time is estimated."""
        return counted_name(self.task["func"])

    @property
    def stored_hook(self) -> str | None:
        """The name of the package's hook as a row stores it; None without a hook."""
        hook = self.task.get("hook")
        return stored_name(hook) if hook else None

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments in the package."""
        return tuple(self.task["args"])

    @property
    def kwargs(self) -> dict[str, Any]:
        """The keyword arguments in the package."""
        return dict(self.task["kwargs"])

    def option(self, name: str, default: Any = None) -> Any:
        """Return the value of an option in the package, or `default` if it is not there."""
        return self.task.get(name, default)

    @property
    def origin(self) -> str | None:
        """Who enqueued the package: `CODE`, `SCHEDULE` or `ADMIN`; None if a version without origins built it."""
        return self.task.get("origin")

    @property
    def group(self) -> str | None:
        """The name of the package's group; None without a group."""
        group = self.task.get("group")
        return None if group is None else str(group)

    @property
    def cached(self) -> bool | int:
        """Where the result of the package is kept: False for the tenant's table, True or seconds for the cache."""
        return self.task.get("cached") or False

    @property
    def is_iter_part(self) -> bool:
        """Whether the package is a part of an iter."""
        return bool(self.task.get("iter_count"))

    @property
    def max_deliveries(self) -> int:
        """The number of starts of the package that may end with the death of their worker."""
        return int(self.task.get("max_deliveries") or conf().max_deliveries)

    @property
    def failures(self) -> int:
        """The number of attempts of the package that have ended with an error so far."""
        return int(self.task.get("failures", 0))

    @property
    def is_transactional(self) -> bool:
        """Whether the package is a transactional task: its work and its result are one transaction."""
        return bool(self.task.get("transactional"))

    @property
    def is_on_commit(self) -> bool:
        """Whether the package is enqueued when the current transaction commits."""
        wanted = self.task.get("on_commit")
        return conf().on_commit if wanted is None else bool(wanted)

    @property
    def delay(self) -> float:
        """The seconds from the moment the package is enqueued to its earliest start."""
        return in_seconds(self.task.get("delay") or 0)

    @property
    def priority(self) -> int:
        """The level of the package among those of its tenant, from -100 to 100; a higher one is started first."""
        return int(self.task.get("priority") or 0)

    @property
    def start_interval(self) -> float:
        """The seconds between two starts of the package's function, by its rate; 0 without a rate."""
        rate = self.task.get("rate")
        return seconds_between(rate) if rate else 0.0

    @property
    def log_labels(self) -> dict[str, str]:
        """The `extra` of every log record about the package."""
        return {"schema": self.schema, "task_id": self.id, "func": self.func_name}

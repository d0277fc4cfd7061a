"""The rows of the page of live tasks: the packages of a tenant in the broker, and where those run that are running."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from django.utils.translation import gettext as _

from tenant_q import tenancy
from tenant_q.admin.links import Origin
from tenant_q.admin.state_words import PLACES
from tenant_q.admin.values import in_short
from tenant_q.brokers import get_broker, site_brokers
from tenant_q.brokers.protocol import CANCELLED, Live
from tenant_q.exceptions import BadPackage
from tenant_q.lifecycle import progress
from tenant_q.operations import status
from tenant_q.package.envelope import Found, open_package
from tenant_q.support import moments
from tenant_q.support.durations import duration
from tenant_q.support.visible import visible

SHOWN_ARGUMENTS = 10
"""The most arguments, and the most keyword arguments, of a task that are shown."""


@dataclass(frozen=True, slots=True)
class Running:
    """A task that a worker runs, by the status that the worker's cluster has published.

    Attributes:
        since: When this attempt started.
        seconds: How long it has run.
        worker: The id of the worker's process.
    """

    since: datetime
    seconds: float
    worker: int

    @property
    def took(self) -> str:
        """How long a live task has run, in words."""
        return duration(self.seconds)


@dataclass(frozen=True, slots=True)
class Row:
    """A package as the page of live tasks shows it.

    Attributes:
        id: The id of the task.
        name: Its name.
        func: The path of its function.
        group: Its group, or empty.
        arguments: Its arguments as text, shortened.
        state: Its state in words.
        style: The CSS class of its state.
        due: When it may start, if it is delayed; else None.
        is_cancelled: Whether it is being cancelled.
        problem: Why its package cannot be read, or empty.
        attempt: The number of its start, counted from 1: of the one that runs, or of the next; None if it is not known.
        source: The group of the schedule's or run's tasks that it is one of, or its own group, or empty.
        origin: The schedule or the workflow run that made it, or None.
        running: Where and since when it runs, or None.
        fraction: The part of it that is done, if it reports its progress; else None.
        progress: The text of its progress, or empty.
    """

    id: str
    name: str
    func: str
    group: str
    arguments: str
    state: Any
    style: str
    due: datetime | None
    is_cancelled: bool
    problem: str
    attempt: int | None = None
    source: str = ""
    origin: Origin | None = None
    running: Running | None = None
    fraction: float | None = None
    progress: str = ""


def find_live(limit: int, place: str = "") -> list[Live]:
    """Return the current tenant's first live tasks from the site's brokers. Raises the errors of `Broker.live`.

    Args:
        limit: The most tasks.
        place: "leased", "queued" or "delayed" for the tasks in one place only; empty for all.
    """
    schema = tenancy.task_schema()
    found = [live for broker in site_brokers() for live in broker.live(schema, limit=limit, place=place)]
    order = list(PLACES)
    return sorted(found, key=lambda live: order.index(live.place))[:limit]


def find_one(id: str) -> Live | None:
    """Return the current tenant's live task with this id if it waits or runs. Raises the errors of `Broker.find`."""
    schema = tenancy.task_schema()
    found = (broker.find(schema, id) for broker in site_brokers())
    return next((live for live in found if live), None)


def read_running(schema: str) -> Mapping[str, Running]:
    """Return which tasks of a tenant run, by id, as the clusters of the site have published it within the last seconds.

    Another task that is leased waits for its turn in a worker's batch.

    Raises:
        BrokerError: The broker cannot be reached.
    """
    found = {}
    for cluster in status.clusters(get_broker()):
        for process in cluster.processes if not cluster.is_gone else ():
            if process.task_id is not None and process.schema == schema:
                since = moments.at(cluster.seen.timestamp() - process.seconds)
                found[process.task_id] = Running(since, process.seconds, process.pid)
    return found


def as_row(live: Live) -> Row:
    """Return a live task as the page shows it, even if its package cannot be read."""
    is_cancelled = (live.give_up_reason or "").startswith(CANCELLED)
    state, style = (_("Being cancelled"), "tenant-q-warn") if is_cancelled else PLACES[live.place]
    due = moments.at(live.at) if live.at is not None else None
    common: dict[str, Any] = {
        "id": live.id,
        "state": state,
        "style": style,
        "due": due,
        "is_cancelled": is_cancelled,
    }
    schema = tenancy.current_schema()
    try:
        package = open_package(live.payload, Found(live.id, schema, tenancy.current_key(schema)))
    except BadPackage as error:
        problem = visible(str(error))
        return Row(name=live.id, func=visible(live.func), group="", arguments="", problem=problem, **common)
    fraction, text = _progress(live)
    return Row(
        name=visible(package.name),
        func=visible(package.stored_func),
        group=visible(package.group or ""),
        arguments=_arguments_of(package.args, package.kwargs),
        problem="",
        attempt=package.failures + live.deaths + 1,
        source=str(package.option("schedule") or package.group or ""),
        fraction=fraction,
        progress=text,
        **common,
    )


def _arguments_of(args: Any, kwargs: Any) -> str:
    """Return the arguments of a live task as text, shortened."""
    parts = [in_short(value) for value in args[:SHOWN_ARGUMENTS]]
    parts += [f"{name}={in_short(value)}" for name, value in islice(kwargs.items(), SHOWN_ARGUMENTS)]
    return ", ".join(parts + ["…"] * (max(len(args), len(kwargs)) > SHOWN_ARGUMENTS))


def _progress(live: Live) -> tuple[float | None, str]:
    """Return the progress that a live task has reported: its fraction and its text."""
    reported = progress.read(live.schema, live.id) if live.place == "leased" else None
    return (reported.fraction, reported.text) if reported else (None, "")

"""Tasks and a hook of chains."""

from __future__ import annotations

from typing import Any

from django.db import connection
from django_q.models import Task

from tests import tasks


def chain_ended(task: Task) -> None:
    tasks.note("chain", name=task.name, success=task.success, group=task.group, schema=connection.schema_name)


class PicklesOnce:
    """A value that can be saved, and then not be passed on."""

    left = 2

    def __reduce__(self) -> Any:
        PicklesOnce.left -= 1
        if PicklesOnce.left < 0:
            raise TypeError("it does not pickle any more")
        return (PicklesOnce, ())


def returns_what_pickles_once() -> PicklesOnce:
    PicklesOnce.left = 2
    return PicklesOnce()

"""Database routers of projects."""

from __future__ import annotations

from typing import Any

OURS = ("django_q", "tenant_q")


class Elsewhere:
    """Sends all of Django-Q2's and of tenant_q's to a database that has none of their tables."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "elsewhere" if model._meta.app_label in OURS else None

    db_for_write = db_for_read


class Replica:
    """The router of Django's documentation: reads go to a replica."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "replica"

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"

    def allow_relation(self, *objects: Any, **hints: Any) -> bool:
        return True


class LaggingReplica(Replica):
    """Its replica knows no task yet."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        return "elsewhere" if model._meta.app_label in OURS else "default"

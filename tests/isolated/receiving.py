"""An app with receivers of the project, for clusters: `TEST_APPS='["tests.isolated.receiving.Receiving"]'`."""

from __future__ import annotations

import threading
from typing import Any

from django.apps import AppConfig
from django.db import connection
from django.db.models.signals import post_save

from tests.tasks import note


class Receiving(AppConfig):
    name = "tests.isolated.receiving"

    def ready(self) -> None:
        from django_q.models import Task

        post_save.connect(note_saved, sender=Task)


def note_saved(*, instance: Any, **_: Any) -> None:
    """Note as whom a receiver of a saved result acts, and leave a setting in its session."""
    if not instance.group:
        return
    is_main = threading.current_thread() is threading.main_thread()
    with connection.cursor() as cursor:
        cursor.execute("SELECT session_user::text, current_user::text, current_schema()::text")
        session, current, schema = cursor.fetchone()
        cursor.execute("SET work_mem TO '77MB'")
    note(instance.group, session=session, current=current, schema=schema, is_main=is_main)

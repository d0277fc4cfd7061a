"""The app that puts the named points into the processes of a cluster."""

from __future__ import annotations

from django.apps import AppConfig

from tests.chaos import points


class ChaosConfig(AppConfig):
    name = "tests.chaos"

    def ready(self) -> None:
        if points.is_armed():
            points.install()

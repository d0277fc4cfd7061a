"""The app that puts named points or defects into the processes of a cluster, and lowers what is too long for a test."""

from __future__ import annotations

import os

from django.apps import AppConfig

from tests.chaos import defects, looks, points


class ChaosConfig(AppConfig):
    name = "tests.chaos"

    def ready(self) -> None:
        if points.is_armed():
            points.install()
        if seconds := os.environ.get("CHAOS_ANSWER_SECONDS"):
            from tenant_q.tenancy import wait_limits

            wait_limits.ANSWER_SECONDS = float(seconds)
        if seconds := os.environ.get("CHAOS_SILENT_SECONDS"):
            from tenant_q.cluster import heartbeat

            heartbeat.SILENT_SECONDS = float(seconds)
        if defects.is_armed():
            defects.install()
        if looks.is_armed():
            looks.install()

"""`python manage.py mscluster`: start a cluster that serves every tenant."""

from __future__ import annotations

import logging
import sys
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from tenant_q import __version__, tenancy
from tenant_q.cluster import parent, preflight, reloader
from tenant_q.cluster.sentinel import Plan
from tenant_q.conf import conf, use_cluster
from tenant_q.exceptions import TenantQError
from tenant_q.support.log_labels import NOTHING
from tenant_q.support.visible import visible


class Command(BaseCommand):
    help = "Starts a cluster that runs the tasks and schedules of every tenant, until SIGTERM or Ctrl-C."
    # The same checks run below, and are reported in one sentence instead of a page.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("-n", "--name", help="The name of the cluster, one of ALT_CLUSTERS or a new one.")
        parser.add_argument(
            "--workers", type=int, metavar="N", help="The number of worker processes, instead of Q_CLUSTER['workers']."
        )
        ending = parser.add_mutually_exclusive_group()
        ending.add_argument("--run-once", action="store_true", help="Serve tasks and schedules once, then stop.")
        ending.add_argument("--burst", action="store_true", help="Stop when nothing is queued, delayed or running.")
        ending.add_argument(
            reloader.OPTION,
            action="store_true",
            help="For development: end the cluster and start it again whenever a file of the project changes.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["reload"]:
            self._reload()
        else:
            self._run(options)

    def _run(self, options: dict[str, Any]) -> None:
        """Run the cluster of `mscluster` until it ends."""
        use_cluster(options["name"])
        try:
            with tenancy.limited_waits():
                found = preflight.survey()
            plan = self._plan(options)
        except TenantQError as error:
            raise CommandError(visible(str(error))) from error
        self._print_banner(found, plan)
        _log_to_console()
        code = parent.run(plan)
        if code:
            raise CommandError(
                f"Cluster {found.cluster} ended because its sentinel died; see its log.", returncode=code
            )

    def _reload(self) -> None:
        """Have a process of its own run `mscluster` for development, and start it again after each change."""

        def write(text: str) -> None:
            self.stdout.write(self.style.MIGRATE_HEADING(visible(text)))
            self.stdout.flush()

        try:
            command = reloader.own_command()
        except TenantQError as error:
            raise CommandError(str(error)) from error
        if code := reloader.Reloader(command, write).run():
            raise SystemExit(code)

    def _plan(self, options: dict[str, Any]) -> Plan:
        workers = options["workers"]
        if workers is not None and workers < 1:
            raise CommandError(f"--workers is {workers}; it must be at least 1.")
        return Plan(workers=workers or conf().workers, once=options["run_once"], burst=options["burst"])

    def _print_banner(self, found: preflight.Surroundings, plan: Plan) -> None:
        lines = {
            "cluster": found.cluster,
            "broker": found.broker,
            "database": found.database,
            "tenants": str(found.tenants),
            "workers": str(plan.workers),
            "excluded": ", ".join(found.excluded) or "none",
        }
        self.stdout.write(self.style.MIGRATE_HEADING(f"tenant_q {__version__} mscluster"))
        for name, value in lines.items():
            self.stdout.write(f"  {name:<9} {visible(value)}")
        for warning in found.warnings:
            self.stdout.write(self.style.WARNING(f"  note      {visible(warning)}"))
        sys.stdout.flush()


def _log_to_console() -> None:
    """Show the log of `mscluster` on the console if the project configures no logging, as Django-Q2 does."""
    logger = logging.getLogger("tenant_q")
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    form = "%(asctime)s %(levelname)-8s [%(schema)s] %(message)s"
    handler.setFormatter(logging.Formatter(form, defaults={"schema": NOTHING}))
    logger.addHandler(handler)
    logger.setLevel(conf().log_level)

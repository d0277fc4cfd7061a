"""`python manage.py mshealth`: exit with 0 if all is well, else with 1 and what is wrong, within two seconds."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from django.core.management.base import CommandParser

from tenant_q.conf import use_cluster
from tenant_q.exceptions import ConfigurationError
from tenant_q.management.console import OperatorCommand, styled
from tenant_q.operations import health
from tenant_q.operations.health import Health
from tenant_q.support.plurals import counted

ANSWER_SECONDS = 1.4
"""The time from the start of the process to its answer; the rest of the two seconds is for its end."""
LEAST_SECONDS = 0.3
"""The time that servers have at least, even if Python starts slowly."""


class Command(OperatorCommand):
    help = "Exits with 0 if clusters, broker and database are well, else with 1, within two seconds."
    # A probe runs often, and wrong settings are reported in one sentence anyway.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--host",
            nargs="?",
            const=socket.gethostname(),
            help="Judge only the clusters of this host; without a name, of this machine. Without the option: the "
            "clusters of this machine if it has any, else all clusters of the site.",
        )
        parser.add_argument("-n", "--name", help="Judge only the clusters of this name.")
        parser.add_argument(
            "--live",
            action="store_true",
            help="For a liveness probe: report a server that is away without failing, since a restart would not help.",
        )
        super().add_arguments(parser)

    def perform(self, options: dict[str, Any]) -> None:
        seconds = max(LEAST_SECONDS, ANSWER_SECONDS - _age_of_process())
        use_cluster(options["name"])
        found = self._examine(options, seconds)
        is_well = not found.problems and (options["live"] or not found.outages)
        if options["json"]:
            self.write_json(_as_json(found, is_well))
        else:
            self._write(found, is_well)
        if not is_well:
            raise SystemExit(1)

    def _examine(self, options: dict[str, Any], seconds: float) -> Health:
        try:
            return health.examine(host=options["host"], cluster=options["name"], seconds=seconds)
        except ConfigurationError as error:
            return Health((str(error),), (), (), ())

    def _write(self, found: Health, is_well: bool) -> None:
        for problem in (*found.problems, *found.outages):
            self.show(styled(f"broken  {problem}", "red"))
        for note in found.notes:
            self.show(styled(f"note    {note}", "yellow"))
        live = [one for one in found.clusters if not one.is_gone]
        for one in live if is_well else ():
            workers = (
                f"{counted(len(one.of_role('worker')), 'worker')}{' and a scheduler' if one.has_scheduler else ''}"
            )
            self.show(styled(f"ok      Cluster {one.name} on {one.host} is {one.state}, with {workers}.", "green"))


def _as_json(found: Health, is_well: bool) -> dict[str, Any]:
    return {
        "healthy": is_well,
        "problems": found.problems,
        "outages": found.outages,
        "notes": found.notes,
        "clusters": [
            {"id": one.id, "name": one.name, "host": one.host, "state": "gone" if one.is_gone else str(one.state)}
            for one in found.clusters
        ],
    }


def _age_of_process() -> float:
    """Return the seconds since `mshealth` started; 0 if the system does not provide them."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, AttributeError):
        return 0.0

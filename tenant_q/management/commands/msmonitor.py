"""`python manage.py msmonitor`: show clusters and tenants live in a terminal."""

from __future__ import annotations

import sys
import threading
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.db import connections
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from tenant_q import tenancy
from tenant_q.management import site_tables
from tenant_q.management.console import OperatorCommand, moment, styled
from tenant_q.management.terminal import keys
from tenant_q.operations.site import Site, read_site
from tenant_q.support.visible import one_line

REFRESH_SECONDS = 1.0
KEY_SECONDS = 0.1
"""The longest time from a key to its effect."""
PROCESS_PART = 0.4
"""The part of the screen's lines that processes may take."""
_ORDERS = list(site_tables.ORDERS)


class Reader(threading.Thread):
    """A thread that reads the site again and again, so that keys work even while a server hangs.

    Attributes:
        site: The last snapshot.
        error: What has gone wrong since, or empty.
        count: A number that grows with each snapshot and each error.
        is_paused: Whether it reads nothing for now.
    """

    def __init__(self) -> None:
        super().__init__(name="msmonitor reader", daemon=True)
        self.site: Site | None = None
        self.error = ""
        self.count = 0
        self.is_paused = False
        self._ending = threading.Event()

    def run(self) -> None:
        try:
            while True:
                if not self.is_paused:
                    self._read()
                if self._ending.wait(REFRESH_SECONDS):
                    break
        finally:
            connections.close_all()

    def _read(self) -> None:
        try:
            self.site, self.error = read_site(), ""
        except Exception as error:  # any error is shown, and the next read may succeed
            self.error = one_line(error) or type(error).__name__
        self.count += 1

    def end(self) -> None:
        """Stop the thread that reads for `msmonitor`."""
        self._ending.set()


class Command(OperatorCommand):
    help = "Shows clusters, their processes and the tenants by load, live. Keys: s sort, p pause, q quit."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--schema", help="Only this tenant, and the processes that run a task of it.")
        parser.add_argument(
            "--sort", choices=site_tables.ORDERS, default="load", help="The initial order of the tenants."
        )

    def perform(self, options: dict[str, Any]) -> None:
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise CommandError("msmonitor needs a terminal; `python manage.py msinfo` shows the same once.")
        schema = options["schema"]
        if schema and read_site().tenant(schema) is None:
            tenancy.get_tenant(schema)  # raises, with what is wrong with the name
        console = Console(no_color=options["no_color"] or None, highlight=False, emoji=False, markup=False)
        reader = Reader()
        reader.start()
        try:
            with keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
                self._follow(live, pressed, reader, schema, options["sort"])
        finally:
            reader.end()

    def _follow(self, live: Live, pressed: Any, reader: Reader, schema: str | None, order: str) -> None:
        """Show in `msmonitor` what the reader reads, and obey the keys, until "q"."""
        drawn: Any = None
        while True:
            state = (reader.count, reader.is_paused, order, live.console.size)
            if state != drawn:
                live.update(screen(reader, schema, order, *live.console.size), refresh=True)
                drawn = state
            key = pressed.next(KEY_SECONDS).lower()
            if key == "q":
                return
            if key == "s":
                order = _ORDERS[(_ORDERS.index(order) + 1) % len(_ORDERS)]
            elif key == "p":
                reader.is_paused = not reader.is_paused


def screen(reader: Reader, schema: str | None, order: str, width: int, height: int) -> RenderableType:
    """Return what `msmonitor` shows on a terminal of this width and height."""
    site = reader.site
    keys_line = Text(f"s sort (by {order})  p {'resume' if reader.is_paused else 'pause'}  q quit", style="reverse")
    if site is None:
        return Group(styled(reader.error, "bold red") if reader.error else Text("Reading ..."), keys_line)
    state = Text(f"{moment(site.at)}{'  the display is paused' if reader.is_paused else ''}", style="bold")
    parts: list[RenderableType] = [state, _cut(site_tables.headline(site))]
    if reader.error:
        parts.append(_cut(styled(f"Not refreshed: {reader.error}", "bold red")))
    parts.append("")
    if site.clusters:
        parts += [site_tables.cluster_table(site.clusters, width=width), ""]
    else:
        parts += [styled("No cluster is running; start one with `python manage.py mscluster`.", "bold red"), ""]
    unserved = site_tables.unserved_lines(site)[:3]
    parts += [*map(_cut, unserved), *([""] if unserved else [])]
    deaths = site_tables.death_lines(site.clusters)[-3:]
    parts += [*map(_cut, deaths), *([""] if deaths else [])]
    lines = len(parts) + len(site.clusters)
    found = sorted(site_tables.processes(site.clusters, schema), key=lambda pair: not pair[1].is_busy)
    most = max(1, int(height * PROCESS_PART))
    if found:
        parts += [site_tables.process_table(found[:most], width=width), ""]
        lines += min(len(found), most) + 2
    tenants = [one for one in site.tenants if schema in (None, one.schema)]
    parts.append(
        site_tables.tenant_table(site_tables.in_order(tenants, order)[: max(1, height - lines - 2)], width=width)
    )
    return Group(*parts, keys_line)


def _cut(text: Text) -> Text:
    text.no_wrap, text.overflow = True, "ellipsis"
    return text

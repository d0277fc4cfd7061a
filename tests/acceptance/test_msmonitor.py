"""`msmonitor` on a real terminal, a pseudo one: keys work, and the terminal is as it was before, however it ends."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Message
from tests.conftest import MANAGE, wait_until

LEAVE_SCREEN, SHOW_CURSOR = "\x1b[?1049l", "\x1b[?25h"


class Terminal:
    """A terminal of 40 lines with `msmonitor` in it. `shown` is all that was written to it."""

    def __init__(self, *arguments: str, name: str) -> None:
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.shown = ""
        # What another test or a shell says of its own terminal is not true of this one.
        env = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            [sys.executable, str(MANAGE), "msmonitor", *arguments],
            env=env | {"Q_NAME": name, "TERM": "xterm-256color"},
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
        )

    def read(self) -> str:
        while select.select([self.master], [], [], 0)[0]:
            self.shown += os.read(self.master, 65536).decode(errors="replace")
        return self.shown

    def wait_for(self, text: str) -> None:
        try:
            wait_until(lambda: text in self.read(), what=f"{text!r} on the terminal")
        except AssertionError as error:
            raise AssertionError(f"{error}; the terminal shows {self.shown[-2000:]!r}") from error

    def press(self, key: str) -> None:
        self.shown = ""
        os.write(self.master, key.encode())

    def wait_for_end(self) -> int:
        wait_until(lambda: self.read() is not None and self.process.poll() is not None, what="the end")
        self.read()
        return self.process.returncode

    def is_restored(self) -> bool:
        return termios.tcgetattr(self.slave) == self.before and LEAVE_SCREEN in self.shown and SHOW_CURSOR in self.shown

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def msmonitor(tenants: tuple[str, ...], settings: Any) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def start(*arguments: str) -> Terminal:
        made.append(Terminal(*arguments, name=settings.Q_CLUSTER["name"]))
        return made[-1]

    yield start
    for terminal in made:
        terminal.close()


def test_keys_and_quitting(msmonitor):
    get_broker().enqueue([Message(id=f"p{n}", schema="globex_inc", func="f", payload="x") for n in range(7)])
    terminal = msmonitor()
    terminal.wait_for("sort (by load)")
    terminal.wait_for("globex_inc")
    assert "No cluster is running" in terminal.shown
    assert termios.tcgetattr(terminal.slave) != terminal.before
    terminal.press("s")
    terminal.wait_for("sort (by queued)")
    terminal.press("p")
    terminal.wait_for("the display is paused")
    get_broker().enqueue([Message(id="later", schema="acme_corp", func="f", payload="x")])
    terminal.press("s")
    terminal.wait_for("sort (by running)")
    assert " 7 queued" in terminal.shown, "as it was when it was paused"
    terminal.press("p")
    terminal.wait_for(" 8 queued")
    terminal.press("q")
    assert terminal.wait_for_end() == 0
    assert terminal.is_restored(), terminal.shown


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(msmonitor, number):
    terminal = msmonitor()
    terminal.wait_for("sort (by load)")
    terminal.process.send_signal(number)
    assert terminal.wait_for_end() == 0
    assert terminal.is_restored(), terminal.shown
    assert "Traceback" not in terminal.shown


def test_an_error_leaves_the_terminal_as_it_was(msmonitor):
    terminal = msmonitor("--schema", "nobody")
    assert terminal.wait_for_end() == 1
    assert "No tenant has the schema name 'nobody'" in terminal.shown
    assert termios.tcgetattr(terminal.slave) == terminal.before


def test_without_a_terminal_it_points_to_msinfo(tenants):
    ended = subprocess.run(
        [sys.executable, str(MANAGE), "msmonitor"], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60
    )
    assert ended.returncode == 1 and "needs a terminal; `python manage.py msinfo`" in ended.stderr

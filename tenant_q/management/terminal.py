"""A terminal that gives each key at once, and is as it was before when that ends, however it ends."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Signals that are as if "q" was pressed, so that the terminal is put back. Ctrl-Z would leave it as it is: ignored.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Keys:
    """The keys that are pressed."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._is_ended = False

    def end(self, signum: int, frame: Any) -> None:
        """Handler of the signals that end it."""
        self._is_ended = True

    def next(self, seconds: float) -> str:
        """The next key, waited for at most `seconds`; empty when none was pressed, "q" when it is to end."""
        readable, _, _ = select.select([self._file], [], [], seconds)
        if self._is_ended:
            return "q"
        if not readable:
            return ""
        try:
            return os.read(self._file, 1).decode(errors="replace") or "q"
        except OSError:
            return "q"


@contextmanager
def keys() -> Iterator[Keys]:
    """The keys of the terminal on standard input, unbuffered and not shown."""
    file = sys.stdin.fileno()
    before = termios.tcgetattr(file)
    pressed = Keys(file)
    handlers: dict[int, Any] = {number: signal.signal(number, pressed.end) for number in _ENDING}
    handlers[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, signal.SIG_IGN)
    try:
        tty.setcbreak(file)
        yield pressed
    finally:
        termios.tcsetattr(file, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)

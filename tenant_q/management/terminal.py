"""Read single keys from a terminal, and restore it however the program ends."""

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

# These signals count as the key "q", so that the terminal is restored. Ctrl-Z would not restore it and is ignored.
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


class Keys:
    """The keys that are pressed on a terminal."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._is_ended = False

    def end(self, signum: int, frame: Any) -> None:
        """Handle a signal that ends the program on the terminal: `next` returns "q" from now on."""
        self._is_ended = True

    def next(self, seconds: float) -> str:
        """Return the next key from the terminal; empty if none comes within `seconds`, "q" if the program is to end."""
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
    """Yield the keys of the terminal on standard input, unbuffered and without echo."""
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

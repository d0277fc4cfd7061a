"""Read the figures that Redis keeps: one string of 32-bit words, so that one BITFIELD counts a task of a tenant."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence

from tenant_q.brokers.loads import COUNTS, NOTHING, Figures

# In front of the name of a function.
OF_ALL = "*;"
# In front of the number of a place that is free again.
FREE = "~free;"
# The counts, and two words each for the microseconds run and the milliseconds waited.
_WORDS = COUNTS + 4
_WORD_BYTES = 4


class Ledger:
    """The figures of each tenant and function.

    Args:
        places: The names and their places in the string, as the fields and values of a hash.
        now: The string; None if there is none yet.
    """

    def __init__(self, places: Sequence[bytes], now: bytes | None) -> None:
        self.places = {name.decode(): int(place) for name, place in zip(places[::2], places[1::2], strict=True)}
        self._now = self._read(now or b"")

    def since(self, before: bytes) -> dict[str, Figures]:
        """Return the figures in the ledger, by name, of what was done since Redis' string of figures was `before`."""
        then = self._read(before)
        used = ((name, place) for name, place in self.places.items() if not name.startswith(FREE))
        return {name: self._difference(place * _WORDS, then) for name, place in used}

    def _difference(self, first: int, then: array[int]) -> Figures:
        new, old = self._now[first : first + _WORDS], then[first : first + _WORDS]
        if new == old:
            return NOTHING
        counts = [(after - before) % 2**32 for after, before in zip(new[:COUNTS], old, strict=False)]
        run_us, wait_ms = (_long(new, at) - _long(old, at) for at in (COUNTS, COUNTS + 2))
        return Figures.of(counts, run_us, wait_ms)

    def _read(self, text: bytes) -> array[int]:
        """Return the words of the ledger; those that were not written yet are 0."""
        words = array("I")
        words.frombytes(text.ljust(len(self.places) * _WORDS * _WORD_BYTES, b"\0"))
        if sys.byteorder == "little":
            words.byteswap()
        return words


def _long(words: array[int], at: int) -> int:
    return (words[at] << 32) + words[at + 1]

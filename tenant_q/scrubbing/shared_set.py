"""A set of texts that a process shares with all processes forked from it. It holds about a thousand, for ever."""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
from mmap import mmap

_SLOTS = 1024
_WIDTH = 8  # bytes of a hash


class SharedSet:
    """A set of texts in shared memory, which keeps a hash of each."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (kept as long as the set)
        self._file.truncate(_SLOTS * _WIDTH)
        self._memory = mmap(self._file.fileno(), _SLOTS * _WIDTH)

    def add(self, text: str) -> bool:
        """Add a text to the shared set. Return whether it was new; also False if the set is full."""
        hashed = hashlib.blake2b(text.encode(errors="replace"), digest_size=_WIDTH).digest()
        fcntl.lockf(self._file, fcntl.LOCK_EX)
        try:
            for at in range(0, _SLOTS * _WIDTH, _WIDTH):
                found = self._memory[at : at + _WIDTH]
                if found == hashed:
                    return False
                if not any(found):
                    self._memory[at : at + _WIDTH] = hashed
                    return True
            return False
        finally:
            fcntl.lockf(self._file, fcntl.LOCK_UN)

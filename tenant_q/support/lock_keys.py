"""Make the keys of PostgreSQL's advisory locks, which are numbers, from texts."""

from __future__ import annotations

import hashlib


def lock_key(text: str) -> int:
    """Return the key of the advisory lock for a text: a hash of 64 bits."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big", signed=True)

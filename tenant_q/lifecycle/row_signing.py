"""Sign the pickled columns of a task's row: the signature is a trailer behind the pickle, inside the base64 text.

`pickle.loads` ignores what follows a pickle's STOP, so Django-Q2 reads a signed column as it reads any other. The
trailer is a version tag, a letter for the origin, and a keyed BLAKE2b over the tenant, the row's id, function, hook,
cluster, origin, the column's name and the pickle.
"""

from __future__ import annotations

import functools
import hashlib
from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.utils.crypto import constant_time_compare
from django.utils.encoding import force_bytes

from tenant_q.exceptions import UnknownTenant
from tenant_q.package.package import ADMIN, CODE, SCHEDULE, Package
from tenant_q.tenancy import current_key

TAG = b"\0tq1"
_SALT = b"tenant_q.lifecycle.row_signing\0"
_DIGEST = 32
_TRAILER = len(TAG) + 1 + _DIGEST
_COLUMNS = {name: f"\0{name}\0".encode() for name in ("args", "kwargs", "result")}
# A package of the version before names no origin.
_LETTERS = {CODE: b"c", SCHEDULE: b"s", ADMIN: b"a", None: b"-"}
_ORIGINS = {letter: origin for origin, letter in _LETTERS.items()}


@dataclass(frozen=True, slots=True)
class Signed:
    """A column whose signature fits: the pickle without its trailer, and who enqueued the task.

    `origin` is None for a task that was enqueued by a version without origins.
    """

    pickled: bytes
    origin: str | None


class RowSigner:
    """Signs the pickled columns of one row.

    Args:
        tenant: The key of the tenant.
        id: The id as it is stored.
        func: The function as it is stored.
        hook: The hook as it is stored.
        cluster: The cluster as it is stored.
        origin: Who enqueued the task.
    """

    __slots__ = ("_letter", "_mac")

    def __init__(
        self, tenant: str, id: str, func: str | None, hook: str | None, cluster: str | None, origin: str | None
    ) -> None:
        self._letter = _LETTERS.get(origin, _LETTERS[None])
        self._mac = _mac_of_row(settings.SECRET_KEY, tenant, id, func, hook, cluster, self._letter)

    def sign(self, column: str, pickled: bytes) -> str:
        """Sign a column of the row. Return its text: base64 of the pickle and its trailer, the signature."""
        return b64encode(pickled + TAG + self._letter + _digest(self._mac, column, pickled)).decode("ascii")


def verified_column(
    text: str | None, column: str, row: Any, schema: str, *, tenant: str | None = None
) -> Signed | None:
    """Return the content of a signed column of a task's row, or None if its signature does not fit.

    The key is SECRET_KEY or one of SECRET_KEY_FALLBACKS. Nothing is unpickled.

    Args:
        text: The column as it is stored.
        column: The name of the column.
        row: The row, with the stored `id`, `func`, `hook` and `cluster`.
        schema: The tenant's schema.
        tenant: The key of the tenant; None for the one that has the schema now.

    Returns:
        The content, or None if the signature does not fit.
    """
    try:
        data = b64decode(text or "")
    except ValueError:
        return None
    pickled, trailer = data[:-_TRAILER], data[-_TRAILER:]
    letter, digest = trailer[len(TAG) : len(TAG) + 1], trailer[len(TAG) + 1 :]
    if len(data) < _TRAILER or not trailer.startswith(TAG) or letter not in _ORIGINS:
        return None
    tenant = _key_of(schema) if tenant is None else tenant
    for key in (settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS):
        mac = _mac_of_row(key, tenant, row.id, row.func, row.hook, row.cluster, letter)
        if constant_time_compare(_digest(mac, column, pickled), digest):
            return Signed(pickled, _ORIGINS[letter])
    return None


def signed_tenant(package: Package) -> str:
    """Return the tenant that the signature of a package's row covers, by its key, which a rename keeps.

    A package of an earlier version has no key. It counts as one of the tenant that has the schema now.
    """
    return _key_of(package.schema) if package.tenant is None else package.tenant


def _key_of(schema: str) -> str:
    """Return the key of the tenant whose rows are signed in a schema; empty for `public`, or without a tenant."""
    try:
        return current_key(schema)
    except UnknownTenant:
        return ""


def _mac_of_row(
    key: str | bytes,
    tenant: str,
    id: str,
    func: str | None,
    hook: str | None,
    cluster: str | None,
    letter: bytes,
) -> Any:
    """Return the keyed hash with which each signature of a row begins: of the values that all its columns share.

    PostgreSQL holds no zero bytes in text, so no two rows have the same input.
    """
    mac = _keyed(key).copy()
    mac.update("\0".join((tenant, id, func or "", hook or "", cluster or "", "")).encode() + letter)
    return mac


@functools.lru_cache(maxsize=16)
def _keyed(key: str | bytes) -> Any:
    return hashlib.blake2b(key=hashlib.sha256(_SALT + force_bytes(key)).digest(), digest_size=_DIGEST)


def _digest(mac: Any, column: str, pickled: bytes) -> bytes:
    own = mac.copy()
    own.update(_COLUMNS[column])
    own.update(pickled)
    return bytes(own.digest())

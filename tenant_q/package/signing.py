"""Sign the bytes of a package, and check the signature, exactly as Django-Q2's `SignedPackage` does.

The text is `<data>:<timestamp>:<signature>`: base64 without padding, a dot before compressed data, and Django's salted
HMAC. A plain Django-Q2 reads what this module signs, and this module reads what Django-Q2 signs. Django's own classes
derive the key again for each text; this module derives it once.
"""

from __future__ import annotations

import functools
import hmac
import time
import zlib
from typing import Any

from django.core.signing import b62_encode, b64_decode, b64_encode
from django.utils.crypto import salted_hmac
from django_q.conf import Conf
from django_q.signing import BadSignature

_ALGORITHM = "sha256"
_COMPRESSED = b"."


def sign(data: bytes, *, compress: bool) -> str:
    """Sign bytes as Django-Q2 does, and return the signed text.

    Args:
        data: The bytes.
        compress: Whether the text contains the compressed bytes, if these are shorter.
    """
    shorter = zlib.compress(data) if compress else data
    encoded = _COMPRESSED + b64_encode(shorter) if len(shorter) < len(data) - 1 else b64_encode(data)
    text = b"%b:%b" % (encoded, _timestamp_of(int(time.time())))
    return (b"%b:%b" % (text, _signature(text))).decode()


def unsign(signed: str) -> bytes:
    """Check the signature of a signed text, and return its bytes. Raises `BadSignature`."""
    text, _, signature = signed.encode().rpartition(b":")
    encoded, _, timestamp = text.rpartition(b":")
    if not timestamp:
        raise BadSignature("it is not a signed text")
    if not hmac.compare_digest(signature, _signature(text)):
        raise BadSignature(f'Signature "{signature.decode()}" does not match')
    return _decoded(encoded)


def peek(signed: str) -> bytes:
    """Return the bytes of a signed text without a check of its signature, to see whether it is worth that.

    Raises:
        ValueError: It is no such text.
    """
    try:
        return _decoded(signed.partition(":")[0].encode())
    except zlib.error as error:
        raise ValueError(str(error)) from error


def size_of(signed: str) -> int:
    """Return the number of bytes in a signed text, before they were compressed."""
    encoded = signed.partition(":")[0].encode()
    return len(_decoded(encoded)) if encoded.startswith(_COMPRESSED) else len(encoded) * 3 // 4


def _decoded(encoded: bytes) -> bytes:
    if encoded.startswith(_COMPRESSED):
        return zlib.decompress(b64_decode(encoded[1:]))
    return b64_decode(encoded)


def _signature(text: bytes) -> bytes:
    mac = _keyed(Conf.SECRET_KEY, Conf.PREFIX).copy()
    mac.update(text)
    return b64_encode(mac.digest())


@functools.lru_cache(maxsize=8)
def _keyed(key: str, salt: str) -> Any:
    """Return the HMAC of nothing, which is copied to sign each text."""
    return salted_hmac(f"{salt}signer", b"", key, algorithm=_ALGORITHM)


@functools.lru_cache(maxsize=2)
def _timestamp_of(second: int) -> bytes:
    return b62_encode(second).encode()

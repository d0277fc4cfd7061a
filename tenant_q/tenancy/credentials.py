"""The passwords of tenants' roles. They are computed and never stored; a rotation increments the version."""

from __future__ import annotations

import hashlib
import hmac

from django.utils.module_loading import import_string

from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError
from tenant_q.support.visible import error_line

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_CHARACTERS = 43  # enough for 256 bits
# What `TENANT_Q["role_key"]` says in a worker.
HIDDEN = "hidden in workers; this text is not the key"

_key: str | None = None


def keep_key() -> None:
    """Keep the role key of the settings in this module, so that it can be hidden from the tasks of this process."""
    global _key
    _key = conf().role_key if conf().role_key != HIDDEN else _key


def password_of(database: str, role: str, version: int) -> str:
    """Return the password of a tenant's role: by `TENANT_Q["credentials"]`, or by HMAC-SHA256 from the role key.

    Args:
        database: The name of the database.
        role: The name of the role.
        version: The version of the password.

    Raises:
        ConfigurationError: No key is set, or the project's function fails.
    """
    if path := conf().credentials:
        return _by_project(path, database, role, version)
    key = _key or conf().role_key
    if key is None:
        raise ConfigurationError(
            "TENANT_Q['role_key'] is not set, so the tenants' roles have no passwords; set it from the environment to "
            "a secret of at least 32 bytes."
        )
    message = "\0".join((database, role, str(version))).encode()
    return _base62(hmac.new(key.encode(), message, hashlib.sha256).digest())


def _by_project(path: str, database: str, role: str, version: int) -> str:
    try:
        password = import_string(path)(database, role, version)
    except Exception as error:
        raise ConfigurationError(
            f"TENANT_Q['credentials'] ({path}) fails for the role {role}: {error_line(error)}; correct it."
        ) from error
    if not isinstance(password, str) or not password:
        raise ConfigurationError(f"TENANT_Q['credentials'] ({path}) returns no password for the role {role}; add it.")
    return password


def _base62(digest: bytes) -> str:
    number, characters = int.from_bytes(digest), []
    for _ in range(_CHARACTERS):
        number, rest = divmod(number, len(_ALPHABET))
        characters.append(_ALPHABET[rest])
    return "".join(characters)

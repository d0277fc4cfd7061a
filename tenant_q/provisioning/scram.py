"""Compute what PostgreSQL keeps of a password, so that no password is ever part of a statement or of a server's log."""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from tenant_q.conf import conf
from tenant_q.exceptions import ConfigurationError
from tenant_q.tenancy.credentials import password_of

# PostgreSQL's own number. A password that the project returns may be weak, so a guess must cost something.
DEFAULT_ITERATIONS = 4096
_SALT_BYTES = 16


def role_verifier(database: str, role: str, version: int) -> str:
    """Return the SCRAM verifier of a tenant role's password. Raises `ConfigurationError` as `password_of`.

    A password from the role key has 256 bits, which nobody guesses, so one iteration is enough. It keeps the login of a
    worker short.
    """
    return verifier(password_of(database, role, version), DEFAULT_ITERATIONS if conf().credentials else 1)


def verifier(password: str, iterations: int = 1) -> str:
    """Return the SCRAM-SHA-256 verifier of a password, with a new salt, as `ALTER ROLE ... PASSWORD` takes it.

    Args:
        password: The password, of printable ASCII characters. For others, client and server would have to agree on
            their normal form.
        iterations: How often the password is hashed.

    Raises:
        ConfigurationError: The password has other characters.
    """
    if not password or not (password.isascii() and password.isprintable()):
        raise ConfigurationError(
            "A password of a tenant's role must consist of printable ASCII characters; correct TENANT_Q['credentials']."
        )
    salt = os.urandom(_SALT_BYTES)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored_key = hashlib.sha256(_sign(salted, b"Client Key")).digest()
    server_key = _sign(salted, b"Server Key")
    return f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored_key)}:{_text(server_key)}"


def _sign(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, hashlib.sha256).digest()


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()

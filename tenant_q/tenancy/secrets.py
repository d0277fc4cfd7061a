"""Hide from the tasks of a worker what would let them log in as someone else: in Django's settings and the environment.

This concerns tasks that send hostile SQL, also over sessions that they open with what the settings show. Hostile Python
can read the memory of its process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from django.conf import settings
from psycopg import conninfo

from tenant_q.conf import conf
from tenant_q.tenancy import credentials, owner_settings

HIDDEN = "hidden in workers"


def hide() -> None:
    """Hide the role key, the administrator's URL, and texts in the settings and the environment with the passwords."""
    credentials.keep_key()
    hidden = set(_forms(_secrets()))
    given = dict(settings.TENANT_Q)
    if given.get("role_key"):
        given["role_key"] = credentials.HIDDEN
    if "://" in str(given.get("admin_database")):
        del given["admin_database"]
    settings.TENANT_Q = given
    conf.cache_clear()
    for name in dir(settings):
        value = getattr(settings, name) if name.isupper() else None
        if isinstance(value, str) and any(secret in value for secret in hidden):
            setattr(settings, name, HIDDEN)
    for name, value in list(os.environ.items()):
        if any(secret in value for secret in hidden):
            del os.environ[name]


def _secrets() -> Iterable[str]:
    """Yield the role key and the passwords of the owner and of the administrator."""
    url = conf().admin_database or ""
    password = conninfo.conninfo_to_dict(url).get("password") if "://" in url else None
    found = (conf().role_key, password, *owner_settings.owners_passwords())
    return (str(secret) for secret in found if secret)


def _forms(secrets: Iterable[str]) -> Iterable[str]:
    """Yield secrets as they are written in texts, URLs and JSON."""
    for secret in secrets:
        yield from (secret, quote(secret), quote(secret, safe=""), quote_plus(secret), json.dumps(secret)[1:-1])

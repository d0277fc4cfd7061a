"""Hide from the tasks of a worker what would let them log in as someone else: in Django's settings and the environment.

This concerns tasks that send hostile SQL, also over sessions that they open with what the settings show. Hostile Python
can read the memory of its process.
"""

from __future__ import annotations

import os

from django.conf import settings

from tenant_q.conf import conf
from tenant_q.tenancy import acting, credentials


def hide() -> None:
    """Hide the role key, the URL of the administrator's session, and variables of the environment with secrets."""
    credentials.keep_key()
    secrets = [one for one in (conf().role_key, conf().admin_database, *acting.owners_passwords()) if one]
    given = dict(settings.TENANT_Q)
    if given.get("role_key"):
        given["role_key"] = credentials.HIDDEN
    if "://" in str(given.get("admin_database")):
        del given["admin_database"]
    settings.TENANT_Q = given
    conf.cache_clear()
    for name, value in list(os.environ.items()):
        if any(secret in value for secret in secrets):
            del os.environ[name]

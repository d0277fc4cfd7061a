"""Record who did what: an audit record for each act of an operator or of a tenant's staff."""

from __future__ import annotations

import getpass
import os
from typing import Any

from tenant_q import tenancy
from tenant_q.models import AuditRecord


def record(
    actor: str,
    act: str,
    *,
    schema: str | None = None,
    target: str = "",
    before: Any = None,
    after: Any = None,
) -> AuditRecord:
    """Leave an audit record, in the caller's transaction if there is one.

    Parameters: `actor`, who acts; `act`, what is done; `schema`, to which tenant; `target`, to what of it, as package
    ids; `before` and `after`, what was and what is, as JSON can hold it.
    """
    with tenancy.told_when_away(), tenancy.in_public():
        made: AuditRecord = AuditRecord.objects.using(tenancy.database_alias()).create(
            actor=actor[:150], act=act, schema_name=schema, target=target, before=before, after=after
        )
    return made


def operator() -> str:
    """Who runs this process: the system's user, and behind `sudo` the one who called it."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user often has no name
        user = f"uid {os.getuid()}"
    behind = os.environ.get("SUDO_USER")
    return f"{behind} as {user}" if behind and behind != user else user

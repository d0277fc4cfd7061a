"""The scheduler's database session: PostgreSQL notifies it of plans, and it is replaced when it has grown large."""

from __future__ import annotations

from typing import Any

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.schedules import due_index
from tenant_q.tenancy import repair_marks

# After the tables of this many schemas the session is replaced: the server keeps something about each in its memory.
TABLES_A_SESSION = 2000


class SchedulerSession:
    """The session of the scheduler on the tenants' connection.

    `has_news` says that a notification of an earlier plan has come; the scheduler resets it. `unsure` are the schemas
    whose entries a trigger could not keep. `has_marks` says that a tenant's role may have been marked for its repair.
    `seen` are the schemas whose tables the session knows.
    """

    def __init__(self) -> None:
        self.has_news = self.has_marks = False
        self.unsure: set[str] = set()
        self.seen: set[str] = set()
        self._session: Any = None

    def files(self) -> list[int]:
        """Return the file on which the scheduler's session is notified."""
        return [self._session.fileno()] if self._session is not None and not self._session.closed else []

    def subscribe(self) -> bool:
        """Subscribe the scheduler's session to notifications if it is new: at first, and after an outage.

        Returns:
            Whether notifications may have been lost before.
        """
        connection = tenancy.tenant_connection()
        connection.ensure_connection()
        if connection.connection is self._session:
            return False
        is_isolated = conf().isolation != "path"
        due_index.subscribe(*([repair_marks.CHANNEL] if is_isolated else []))
        self.has_marks = is_isolated
        self._session = connection.connection
        self._session.add_notify_handler(self._note)
        return True

    def replace_when_large(self) -> None:
        """Replace the scheduler's session if it knows many tables. No notification is lost.

        The old session is read to its end once the new one has subscribed.
        """
        if len(self.seen) < TABLES_A_SESSION:
            return
        self.seen.clear()
        connection = tenancy.tenant_connection()
        before, connection.connection = connection.connection, None
        if before is None:
            return
        try:
            self.subscribe()
            before.execute("SELECT 1")
        finally:
            before.close()

    def _note(self, notification: Any) -> None:
        if notification.channel == due_index.UNSURE:
            self.unsure.add(notification.payload)
        elif notification.channel == repair_marks.CHANNEL:
            self.has_marks = True
        else:
            self.has_news = True

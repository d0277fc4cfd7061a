"""The completer's thread: it completes outcomes in time while the worker's task runs long."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from django.db import connections

from tenant_q import tenancy
from tenant_q.exceptions import BrokerError, DatabaseAway
from tenant_q.scrubbing import sessions
from tenant_q.support.log_labels import get_logger
from tenant_q.support.unix_signals import leave_signals_to_main_thread

logger = get_logger("tenant_q.outbox")

# How often the thread checks whether an outcome has waited long enough, in seconds.
LOOK_SECONDS = 0.1


class Completable(Protocol):
    """The finished work that the thread completes."""

    def is_due(self) -> bool:
        """Return whether the completer's thread has an outcome to complete now."""

    def finish(self) -> None:
        """Complete all outcomes that the completer's thread finds."""


class CompleterThread:
    """The thread of the worker `key`. Until the first `start` there is none, since most workers never need it."""

    def __init__(self, key: str, work: Completable) -> None:
        self.key = key
        self.work = work
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def start(self) -> None:
        """Start the completer's thread, unless it runs. Call it between tasks: it copies the database settings."""
        if self._thread is None:
            arguments = (sessions.copied_settings(),)
            self._thread = threading.Thread(target=self._run, args=arguments, name="tenant_q completer", daemon=True)
            self._thread.start()

    def is_current(self) -> bool:
        """Return whether the caller runs in the completer's thread."""
        return threading.current_thread() is self._thread

    def is_alive(self) -> bool:
        """Return whether the completer's thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def close(self) -> None:
        """End the completer's thread, and wait for its end."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, settings: Mapping[str, Any]) -> None:
        leave_signals_to_main_thread()
        tenancy.keep_own_thread()
        sessions.use_settings(settings)
        while not self._closing.wait(LOOK_SECONDS):
            if self.work.is_due():
                self.complete()
        connections.close_all()

    def complete(self) -> None:
        """Complete outcomes in the completer's thread. What fails is left to the worker, after its task."""
        try:
            self.work.finish()
        except (BrokerError, DatabaseAway):
            logger.debug("The completer of worker %s waits for a server", self.key, event="completer.waiting")
        except Exception:
            logger.exception("The completer's thread left its work to worker %s", self.key, event="completer.failed")

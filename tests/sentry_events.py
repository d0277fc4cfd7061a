"""What sentry-sdk would send, kept in a list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.transport import Transport


class Kept(Transport):
    """A transport that keeps the events."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Any] = []

    def capture_envelope(self, envelope: Envelope) -> None:
        event = envelope.get_event()
        if event is not None:
            self.events.append(event)


@contextmanager
def sentry() -> Iterator[list[Any]]:
    """In this block sentry-sdk is set up, without the integrations that it finds: they would change this process."""
    kept = Kept()
    sentry_sdk.init(dsn="http://key@localhost/1", transport=kept, auto_enabling_integrations=False)
    try:
        yield kept.events
    finally:
        sentry_sdk.get_global_scope().set_client(None)
        sentry_sdk.get_isolation_scope().clear()


def raised(event: Any) -> dict[str, Any]:
    """The exception of an event, by which Sentry groups it."""
    value: dict[str, Any] = event["exception"]["values"][-1]
    return value


def frames(event: Any) -> list[str]:
    """The functions in the traceback of an event."""
    return [frame["function"] for frame in raised(event)["stacktrace"]["frames"]]

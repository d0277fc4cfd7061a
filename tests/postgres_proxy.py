"""A proxy in front of PostgreSQL that freezes single sessions: they stay open, and nothing comes through any more."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from django.db import connection


@dataclass
class Session:
    """A client's session. It `waits` while a request has no answer.

    `swallowed_at` and `closed_at` say when a request or its answer was swallowed first, and when the client left.
    """

    client: socket.socket
    server: socket.socket
    to_server_frozen: bool = False
    to_client_frozen: bool = False
    waits: bool = False
    swallowed_at: float | None = None
    closed_at: float | None = None
    requests: list[bytes] = field(default_factory=list)


# What is done with a request: passed on (None), swallowed, or passed on without its answer.
REQUEST, ANSWER = "request", "answer"
Choice = Callable[[bytes], str | None]


class Proxy:
    """Passes on what comes over TCP on `port` to the server that Django's settings name.

    `choose` is called with each piece that a client sends; what it returns freezes that session.
    """

    def __init__(self) -> None:
        self.choose: Choice = lambda _: None
        self.sessions: list[Session] = []
        self._target = _address()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._stopping = False
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)
        self._thread.start()

    def freeze(self, session: Session, what: str) -> None:
        """Swallow the answers of a session from now on, and with `REQUEST` also what it sends."""
        session.to_client_frozen = True
        session.to_server_frozen = what == REQUEST

    def frozen(self) -> list[Session]:
        return [session for session in self.sessions if session.to_client_frozen]

    def stop(self) -> None:
        self._stopping = True
        self._thread.join()
        for session in self.sessions:
            session.client.close()
            session.server.close()
        self._listener.close()
        self._selector.close()

    def _serve(self) -> None:
        while not self._stopping:
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._pass_on(*key.data)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket(self._target[0], socket.SOCK_STREAM)
        try:
            server.connect(self._target[1])
        except OSError:  # it is down
            client.close()
            return
        session = Session(client, server)
        self.sessions.append(session)
        self._selector.register(client, selectors.EVENT_READ, (session, True))
        self._selector.register(server, selectors.EVENT_READ, (session, False))

    def _pass_on(self, session: Session, is_request: bool) -> None:
        source, target = (session.client, session.server) if is_request else (session.server, session.client)
        try:
            data = source.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._close(session, by_client=is_request)
            return
        if is_request:
            session.requests.append(data)
            session.waits = True
            choice = None if session.to_client_frozen else self.choose(data)
            if choice is not None:
                self.freeze(session, choice)
        if session.to_server_frozen if is_request else session.to_client_frozen:
            if session.waits:  # else the server says something by itself, a notification
                session.swallowed_at = session.swallowed_at or time.monotonic()
            return
        if not is_request:
            session.waits = False
        with contextlib.suppress(OSError):
            target.sendall(data)

    def _close(self, session: Session, *, by_client: bool) -> None:
        if not by_client and session.to_client_frozen:  # it does not even see that the server closed
            self._selector.unregister(session.server)
            return
        session.closed_at = time.monotonic()
        for one in (session.client, session.server):
            with contextlib.suppress(KeyError, ValueError):
                self._selector.unregister(one)
            one.close()


def _address() -> tuple[int, Any]:
    settings = connection.settings_dict
    host, port = settings.get("HOST") or settings["OPTIONS"].get("host") or "localhost", settings.get("PORT") or 5432
    if host.startswith("/"):
        return socket.AF_UNIX, f"{host}/.s.PGSQL.{port}"
    return socket.AF_INET, (host, int(port))

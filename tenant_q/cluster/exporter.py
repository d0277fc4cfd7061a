"""The exporter: a process of the cluster that answers Prometheus on `TENANT_Q["metrics_port"]`.

It is a process of its own, because a process that forks must not run a thread, and a task must not wait for a scrape.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tenant_q.cluster.role import Role
from tenant_q.cluster.shared_memory import Slot
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, DatabaseAway
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.exporter")

# Another cluster of this machine may have the port. When it stops, this one takes the port.
AGAIN_SECONDS = 2.0
# The connection of a silent client is closed after this time.
CLIENT_SECONDS = 2.0
_REST = 30.0


class Exporter(Role):
    """Answers one request after another."""

    name = "exporter"

    def __init__(self, slot: Slot, *, once: bool = False) -> None:
        super().__init__(slot, once=once)
        self._server: WSGIServer | None = None
        self._has_failed = False

    def tick(self) -> float:
        """Answer one request of Prometheus to the exporter."""
        if self._server is None and not self._open():
            return AGAIN_SECONDS
        assert self._server is not None
        self._server.handle_request()
        self.slot.count()
        return _REST

    def files(self) -> list[Any]:
        """Return the socket on which the exporter listens, if there is one."""
        return [self._server.fileno()] if self._server else []

    def close(self) -> None:
        """Close the socket on which the exporter listens."""
        if self._server:
            self._server.server_close()

    def _open(self) -> bool:
        address, port = conf().metrics_address, conf().metrics_port
        try:
            self._server = make_server(address, port, _application(), handler_class=_Handler)
        except OSError as error:
            if not self._has_failed:
                logger.error(
                    "Cannot serve metrics on %s:%s yet: %s",
                    address,
                    port,
                    error.strerror or error,
                    event="metrics.port_unavailable",
                )
            self._has_failed = True
            return False
        self._server.timeout = 0  # a pause waits for requests
        logger.info("Serving metrics at http://%s:%s/metrics", address, port, event="metrics.serving")
        return True


class _Handler(WSGIRequestHandler):
    """Closes silent connections, and does not log a line for each scrape."""

    timeout = CLIENT_SECONDS

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug(format, *args, event="metrics.requested")


def _application() -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    from prometheus_client import make_wsgi_app  # an extra

    from tenant_q.operations.metrics import registry

    collected = make_wsgi_app(registry())

    def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        try:
            found: Iterable[bytes] = collected(environ, start_response)
            return found
        except (BrokerError, DatabaseAway) as error:
            start_response("503 Service Unavailable", [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{error}\n".encode()]

    return application

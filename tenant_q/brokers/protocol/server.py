"""The server behind a broker: whether it answers, takes writes, and is set up well."""

from __future__ import annotations

from typing import Protocol

from tenant_q.exceptions import ConfigurationError


class Server(Protocol):
    """A server with the queues of one cluster.

    Attributes:
        cluster: The name of the cluster.
        kind: What kind of broker it is, for messages.
    """

    cluster: str
    kind: str

    def ping(self) -> None:
        """Check that the broker's server answers."""

    def probe(self) -> None:
        """Check that the broker's server takes new entries."""

    def info(self) -> str:
        """Return the kind and version of the broker's server."""

    def warnings(self) -> list[str]:
        """Return what an operator should know about the settings of the broker's server, one sentence each."""

    def raise_epoch(self, number: int, *, known: int) -> int | None:
        """Raise the number that the broker's server holds, by which a scheduler notices that it lost data.

        A broker without `supports_tenant_queues` holds no number, and never says that it lost data.

        Args:
            number: The number. It is not written if the server holds a higher one.
            known: The highest number that the server is known to have held; 0 to write whatever it holds.

        Returns:
            The number that the server holds now; None if it held less than the known one. Then nothing is written.
        """
        return number

    def close(self) -> None:
        """Hand over to the server what this process still keeps for the broker, at its orderly end."""


def refusal(broker: Server, what: str) -> ConfigurationError:
    """Return the error for a caller who wants what the broker's server cannot do."""
    return ConfigurationError(f"The {broker.kind} broker cannot {what}; use Redis for that.")

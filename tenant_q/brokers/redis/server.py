"""The server: whether it answers and takes writes, its version, and settings that may lose tasks."""

from __future__ import annotations

from typing import Any

from tenant_q.brokers.connection import missing_limits
from tenant_q.brokers.redis.part import Part
from tenant_q.exceptions import BrokerError
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.brokers")


class RedisServer(Part):
    """The server, see `protocol.server`."""

    kind = "Redis"

    def ping(self) -> None:
        with self._errors:
            self.client.ping()

    def probe(self) -> None:
        with self._errors:
            self.client.set(f"{self.tag}:probe", "1", px=1000)

    def info(self) -> str:
        try:
            with self._errors:
                server: Any = self.client.info("server")
        except BrokerError as error:
            self.ping()  # the version is only displayed: a user without INFO is served too
            logger.info("The version of the broker's server is not shown: %s", error, event="broker.version_unknown")
            return "Redis"
        if "valkey_version" in server:
            return f"Valkey {server['valkey_version']}"
        return f"Redis {server['redis_version']}"

    def warnings(self) -> list[str]:
        return [*self._missing_limits(), *self._eviction()]

    def _missing_limits(self) -> list[str]:
        if not (missing := " and ".join(missing_limits(self.client))):
            return []
        kind = type(self.client.connection_pool).__name__
        return [f"The {kind} of the client sets no {missing}, so a call may last for ever; set them in its options."]

    def _eviction(self) -> list[str]:
        try:
            with self._errors:
                memory: Any = self.client.info("memory")
        except BrokerError as error:
            self.ping()
            return [
                f"The broker's maxmemory-policy cannot be read ({error.__cause__}); make sure that it is 'noeviction'."
            ]
        policy = memory.get("maxmemory_policy", "noeviction")
        if memory.get("maxmemory") and policy != "noeviction":
            return [f"The broker's maxmemory-policy is '{policy}': it may drop queued tasks; set it to 'noeviction'."]
        return []

    def raise_epoch(self, number: int, *, known: int) -> int | None:
        held = self._run("epoch", number, known)
        return None if held is None else int(held)

    def close(self) -> None:
        """Do nothing, because everything is on the Redis server already."""

"""Run the Lua scripts of the Redis broker, and translate the server's errors by their kind."""

from __future__ import annotations

import functools
import re
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any

import redis
from redis.commands.core import Script
from redis.exceptions import NoScriptError

from tenant_q.brokers.connection import address
from tenant_q.brokers.protocol import LONGEST_WAIT
from tenant_q.exceptions import BrokerDefect, BrokerError, EntryRefused
from tenant_q.support.error_kinds import Kind, is_closed_by_server, kind_of_redis

# The errors that one entry may cause; a caller that sent several entries then sends them one by one.
REFUSALS = (EntryRefused, BrokerDefect)
# No server refuses a smaller command for its size: this is the smallest possible `proto-max-bulk-len`.
LARGE_BYTES = 1024 * 1024

# A script that reads one key.
_PROBE = "queue_size"

_LUA = Path(__file__).parents[1] / "lua"


class Scripts:
    """The scripts of one cluster on one server.

    Args:
        cluster: The name of the cluster, for messages.
        tag: Its hash tag, the key that scripts get.
        client: The client.
    """

    def __init__(self, cluster: str, tag: str, client: redis.Redis) -> None:
        self.cluster = cluster
        self.tag = tag
        self.client = client
        self.errors = _Errors(cluster, client)
        self._scripts: dict[str, Script] = {}
        # A wait as long as the client's timeout would look like an outage.
        self._longest_wait = 0.5 * float(client.connection_pool.connection_kwargs.get("socket_timeout") or 60)

    def run(self, name: str, *arguments: Any, tag: str | None = None) -> Any:
        """Run a Lua script in Redis and return its answer.

        Args:
            name: The name of its file, without the ending.
            arguments: Its arguments.
            tag: The key that it gets in place of the cluster's, or None.

        Raises:
            BrokerError: The server cannot be reached, or serves no client.
            EntryRefused: The server refuses one of the arguments.
            BrokerDefect: The script fails.
        """
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self.client.register_script(source(name))
        try:
            with self.errors:
                return script(keys=[tag or self.tag], args=arguments)
        except BrokerDefect as error:
            self._require_service(name, error)
            raise
        except BrokerError as error:
            if not _is_closed(error) or _size(arguments) < LARGE_BYTES:
                raise
        return self._run_large(script, tag or self.tag, arguments)

    def _require_service(self, name: str, error: BrokerDefect) -> None:
        """Raise `BrokerError` if another Lua script fails too: then the error concerns the whole server."""
        if name == _PROBE:
            return
        try:
            self.run(_PROBE, "", "")
        except (BrokerError, *REFUSALS):
            raise BrokerError(str(error)) from error.__cause__

    def run_when_woken(self, name: str, seconds: float, *arguments: Any) -> Any:
        """Run a Lua script when a token is in the wake list, or when `seconds` have passed, in one round trip.

        The server runs the second command of a connection only after the first, which blocks, has its answer.
        """
        if name not in self._scripts:
            return self.run(name, *arguments)
        # Zero would mean "for ever".
        seconds = max(0.01, min(seconds, LONGEST_WAIT, self._longest_wait))
        pipe = self.client.pipeline(transaction=False)
        pipe.blpop([f"{self.tag}:wake"], timeout=seconds)
        pipe.evalsha(self._scripts[name].sha, 1, self.tag, *arguments)
        try:
            with self.errors:
                return pipe.execute()[1]
        except (BrokerError, BrokerDefect) as error:
            if isinstance(error.__cause__, NoScriptError):  # a new server
                return self.run(name, *arguments)
            raise

    def _run_large(self, script: Script, tag: str, arguments: tuple[Any, ...]) -> Any:
        """Run a Lua script again after the server closed the connection, perhaps because it refuses the command.

        If the server closes the connection again, and answers a ping before and after, it refuses the command.
        """
        with self.errors:
            self.client.ping()
        try:
            with self.errors:
                return script(keys=[tag], args=arguments)
        except BrokerError as error:
            if not _is_closed(error):
                raise
            with self.errors:
                self.client.ping()
            raise EntryRefused(
                f"Redis at {address(self.client)} closes the connection on a command of {_size(arguments)} bytes of "
                f"cluster {self.cluster!r}; see its proto-max-bulk-len and client-query-buffer-limit."
            ) from error


class _Errors(AbstractContextManager[None]):
    """Translate the client's errors in a block by their kind: `BrokerError`, `EntryRefused` or `BrokerDefect`.

    It is entered for each call, and so does as little as possible.
    """

    def __init__(self, cluster: str, client: redis.Redis) -> None:
        self.cluster = cluster
        self.client = client

    def __enter__(self) -> None:
        return None

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, where: TracebackType | None) -> None:
        if not isinstance(error, redis.RedisError | UnicodeError):
            return
        place = f"Redis at {address(self.client)}"
        match kind_of_redis(error):
            case Kind.OUTAGE:
                raise BrokerError(f"{place} does not serve cluster {self.cluster!r}: {error}") from error
            case Kind.REFUSAL:
                raise EntryRefused(f"{place} refuses an entry of cluster {self.cluster!r}: {error}") from error
        raise BrokerDefect(f"{place} fails in a script of cluster {self.cluster!r}: {error}") from error


def _is_closed(error: BrokerError) -> bool:
    return isinstance(error.__cause__, redis.RedisError) and is_closed_by_server(error.__cause__)


def _size(arguments: tuple[Any, ...]) -> int:
    return sum(len(one) for one in arguments if isinstance(one, str | bytes))


@functools.cache
def source(name: str) -> str:
    """Return the text of a Lua script, with the shared functions that it uses in front.

    Redis creates each of these functions anew for every call of the script. In place of those that a script does not
    use there are empty lines, so that the line numbers in the server's errors stay.
    """
    script = (_LUA / f"{name}.lua").read_text()
    used = set(_WORD.findall(_COMMENT.sub("", script)))
    kept = []
    for names, text in reversed(_shared()):
        if used.isdisjoint(names):
            text = "\n" * text.count("\n")
        used.update(_WORD.findall(text))
        kept.append(text)
    return "".join(reversed(kept)) + script


@functools.cache
def _shared() -> list[tuple[list[str], str]]:
    """Return the shared Lua definitions in `common.lua` without their comments, each with the names that it defines."""
    text = _COMMENT.sub("", (_LUA / "common.lua").read_text())
    return [(_DEFINED.findall(one), one) for one in _DEFINITION.findall(text)]


_COMMENT = re.compile(r"--.*")
_WORD = re.compile(r"[A-Za-z_]\w*")
# A definition begins at the start of a line; what is in front of the first one is empty.
_DEFINITION = re.compile(r"\A\s+|^local .*\n(?:(?!local ).*\n)*", re.MULTILINE)
_DEFINED = re.compile(r"\Alocal (?:function )?(\w+)")

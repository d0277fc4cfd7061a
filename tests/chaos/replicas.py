"""A Redis with a replica, both at one address, and failovers to the replica that lack the last writes."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import redis

import servers
from tests.conftest import wait_until


class Replicated:
    """Two servers. The clients' address is a symbolic link to the socket of the one that is the primary."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.address = directory / "redis.sock"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._ports = {name: _free_port() for name in "ab"}
        self.primary, self.replica = "a", "b"
        for name in "ab":
            self._start(name)
        self._point_to_primary()
        self.follow()

    @property
    def url(self) -> str:
        return f"unix://{self.address}?db=0"

    def client(self, name: str) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self.directory / f"{name}.sock"))

    def follow(self) -> None:
        """Have the replica follow the primary, and wait until it has all."""
        self.client(self.replica).replicaof("127.0.0.1", str(self._ports[self.primary]))

        def is_there() -> bool:
            info: Any = self.client(self.replica).info("replication")
            return info.get("master_link_status") == "up"

        wait_until(is_there, what="the replica to follow")
        assert self.client(self.primary).wait(1, 5000) == 1

    def cut(self) -> None:
        """From now on the replica gets nothing: what it lacks later is what is written until the failover."""
        assert self.client(self.primary).wait(1, 5000) == 1
        self.client(self.replica).replicaof("NO", "ONE")

    def fail_over(self) -> None:
        """Kill the primary; the replica takes over its address, and a new replica is started."""
        process = self._processes.pop(self.primary)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.primary, self.replica = self.replica, self.primary
        self._point_to_primary()
        self._start(self.replica)

    def end(self) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def _start(self, name: str) -> None:
        options = {
            "port": self._ports[name],
            "bind": "127.0.0.1",
            "unixsocket": self.directory / f"{name}.sock",
            "dir": self.directory,
            "dbfilename": f"{name}.rdb",
            "save": "",
            "repl-diskless-sync-delay": 0,
        }
        words = [str(word) for option, value in options.items() for word in (f"--{option}", value)]
        binary = str(servers._find_valkey())
        self._processes[name] = subprocess.Popen([binary, *words], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while True:
            try:
                self.client(name).ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _point_to_primary(self) -> None:
        link = self.directory / "next.sock"
        link.symlink_to(self.directory / f"{self.primary}.sock")
        link.replace(self.address)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])

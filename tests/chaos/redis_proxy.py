"""A proxy in front of Redis that refuses what a test says, and passes on the rest, command by command."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

Refusal = Callable[[list[bytes]], str | None]


class RedisProxy:
    """Listens on a unix socket.

    Parameters: `url`, of the server behind it; `path`, of its own socket. `refuse` returns the error with which a
    command is answered, or None where it is passed on; after an error that begins with "ERR Protocol" the connection
    is closed, as Redis does. `refused` counts.
    """

    def __init__(self, url: str, path: str) -> None:
        self.behind = url
        self.path = path
        self.url = f"unix://{path}?db=0"
        self.refuse: Refusal = lambda command: None
        self.refused = 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(path)
        self._listener.listen(128)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no new connection."""
        self._listener.close()
        Path(self.path).unlink()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _connect(self) -> socket.socket:
        parts = urlsplit(self.behind)
        if parts.scheme == "unix":
            server = socket.socket(socket.AF_UNIX)
            server.connect(unquote(parts.path))
            return server
        return socket.create_connection((parts.hostname or "localhost", parts.port or 6379))

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, EOFError), client, self._connect() as server:
            commands, answers = client.makefile("rb"), server.makefile("rb")
            while True:
                sent, command = _read_command(commands)
                error = self.refuse(command)
                if error is None:
                    server.sendall(sent)
                    client.sendall(_read_answer(answers))
                    continue
                self.refused += 1
                client.sendall(f"-{error}\r\n".encode())
                if error.startswith("ERR Protocol"):
                    return


def _line(stream: object) -> bytes:
    line: bytes = stream.readline()
    if not line.endswith(b"\r\n"):
        raise EOFError
    return line


def _bulk(stream: object, size: int) -> bytes:
    data: bytes = stream.read(size + 2)
    if len(data) < size + 2:
        raise EOFError
    return data


def _read_command(stream: object) -> tuple[bytes, list[bytes]]:
    """A command as it was sent, and its words."""
    sent, words = [_line(stream)], []
    for _ in range(int(sent[0][1:])):
        head = _line(stream)
        data = _bulk(stream, int(head[1:]))
        sent += [head, data]
        words.append(data[:-2])
    return b"".join(sent), words


def _read_answer(stream: object) -> bytes:
    head = _line(stream)
    kind = head[:1]
    if kind in b"$=" and int(head[1:]) >= 0:
        return head + _bulk(stream, int(head[1:]))
    if kind in b"*~>%":
        return head + b"".join(_read_answer(stream) for _ in range((2 if kind == b"%" else 1) * int(head[1:])))
    return head

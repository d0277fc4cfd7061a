"""A cluster whose project has set up sentry-sdk sends the failures of its tasks."""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tenant_q.utils import QUtilities
from tests.conftest import wait_until
from tests.tasks import notes

SET_UP = "import sentry_sdk\n\nsentry_sdk.init(dsn={dsn!r}, auto_session_tracking=False)\n"


@pytest.fixture
def server() -> Iterator[tuple[str, list[Any]]]:
    """The address for `sentry_sdk.init()`, and the events that arrive there."""
    events: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            time.sleep(0.5)  # meanwhile the next event waits in the worker
            body = self.rfile.read(int(self.headers["Content-Length"]))
            lines = (gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body).splitlines()
            events.extend(found for found in map(_read, lines) if "exception" in found or "logentry" in found)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        yield f"http://key@127.0.0.1:{http.server_port}/1", events
        http.shutdown()
        thread.join()


def _read(line: bytes) -> Any:
    return json.loads(line) if line.startswith(b"{") else {}


def test_a_worker_sends_its_failures_before_it_ends(tenants, mscluster, server, tmp_path):
    dsn, events = server
    (tmp_path / "sitecustomize.py").write_text(SET_UP.format(dsn=dsn))
    cluster = mscluster("--workers", "1", PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    key = str(tmp_path)
    QUtilities.add_async_task("tests.tasks.complain_and_fail", key, schema_name="globex_inc")
    wait_until(lambda: notes(key), what="the task to run")
    assert cluster.stop() == 0
    complaint, failure = events
    assert complaint["logentry"]["formatted"] == "the bank is away"
    assert failure["exception"]["values"][-1]["type"] == "TimeoutError"
    for event in events:
        assert (event["tags"]["tenant"], event["tags"]["func"]) == ("globex_inc", "tests.tasks.complain_and_fail")

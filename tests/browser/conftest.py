"""Headless Chromium at the test project: its web server and a real cluster are subprocesses."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.db import connection
from django.test import Client

from tenant_q.tenancy import in_schema
from tests.conftest import MANAGE, wait_until
from tests.schemas import served_at

# Where there is no network, or another installs something, that is soon found out.
PATIENCE = ("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "DPkg::Lock::Timeout=60")
NAMES = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of Chromium, which is installed where that is possible. Skips, in a word that is shown, where not.

    Where `CI` is set it fails instead: there nothing is to be left out unseen.
    """
    leave_out = pytest.fail if os.environ.get("CI") else pytest.skip
    if importlib.util.find_spec("playwright") is None:
        leave_out("Playwright is missing: pip install -e '.[browser]'")
    found = _find()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        found = _install()
    if found is None:
        leave_out("Chromium is missing: apt install chromium")
    return found


def _install() -> str | None:
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        command = ["apt-get", "--quiet", *PATIENCE, *arguments]
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, timeout=300)
        except subprocess.TimeoutExpired as error:
            print(error)
            break
        if done.returncode:
            print(f"{' '.join(command)}: {done.stderr.decode(errors='replace')[-500:]}")
    return _find()


def _find() -> str | None:
    return next(filter(None, map(shutil.which, NAMES)), None)


@pytest.fixture
def web(tenants: tuple[str, ...], settings: Any, tmp_path: Path) -> Iterator[int]:
    """The port of a web server that works on this test's queues."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    log = (tmp_path / "mscluster-web.log").open("wb")  # shown when the test fails, as a cluster's
    command = [sys.executable, str(MANAGE), "runserver", "--noreload", f"127.0.0.1:{port}"]
    process = subprocess.Popen(
        command, env=os.environ | {"Q_NAME": settings.Q_CLUSTER["name"]}, stdout=log, stderr=log, start_new_session=True
    )
    try:
        wait_until(lambda: _answers(port) or process.poll() is not None, what="the web server to answer")
        assert process.poll() is None, (tmp_path / "mscluster-web.log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def visit(chromium: str, web: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """`visit(schema, path)` opens a page of a tenant's site, or of the public one, for a user who may do everything."""
    from playwright.sync_api import sync_playwright

    # Playwright has an event loop in this thread, in which Django would refuse to ask the database.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    users: list[str] = []
    with ExitStack() as ends:
        playwright = ends.enter_context(sync_playwright())
        arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        ends.callback(browser.close)

        def visit(schema: str, path: str) -> Any:
            host = f"{schema.replace('_', '-')}-browser.localhost"
            ends.enter_context(served_at(schema, host))
            users.append(schema)
            context = browser.new_context(locale="en-US")
            context.set_default_timeout(60_000)
            cookie = {"name": django_settings.SESSION_COOKIE_NAME, "value": _session(schema), "domain": host}
            context.add_cookies([{**cookie, "path": "/"}])  # type: ignore[typeddict-item]
            page = context.new_page()
            page.goto(f"http://{host}:{web}{path}")
            return page

        yield visit
        for schema in users:
            with in_schema(schema):
                get_user_model().objects.filter(username="visitor").delete()
        connection.set_schema_to_public()


def _session(schema: str) -> str:
    with in_schema(schema):
        user = get_user_model().objects.create_superuser("visitor")
        client = Client()
        client.force_login(user)
        return client.cookies[django_settings.SESSION_COOKIE_NAME].value

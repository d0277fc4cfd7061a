"""`make demo` as a newcomer runs it, with servers of its own, until it is to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

import demo
from tests.conftest import wait_until

DEMO = Path(__file__).parents[2] / "testproject" / "demo.py"
END = "Ending the cluster and the servers ..."


def _as_a_shell_does_in_the_background() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
    return kept | {"DJANGO_SETTINGS_MODULE": "config.settings", "TMPDIR": "/tmp", "Q_NAME": f"demo{os.getpid()}"}


def test_the_demo_does_its_main_job_once():
    """Also a workflow of each tenant, whose effects it checks."""
    done = subprocess.run(
        [sys.executable, str(DEMO), "--once"], env=_environment(), capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" 5/5 │             ") == 3
    assert "No tenant holds another's row" in done.stdout


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, 143)])
def test_the_demo_ends_at_once_also_in_the_background(tmp_path, number, code):
    """It answers before anything has ended. A task of ten seconds runs, and is not waited for."""
    shown = tmp_path / "shown"
    with shown.open("wb") as output:
        demo = subprocess.Popen(
            [sys.executable, str(DEMO), "--port", "0"],
            env=_environment(),
            stdout=output,
            stderr=output,
            preexec_fn=_as_a_shell_does_in_the_background,
        )
    try:
        wait_until(lambda: "Ctrl-C ends all" in shown.read_text() or demo.poll() is not None, 120, "the demo to be up")
        assert demo.poll() is None, shown.read_text()
        started = psutil.Process(demo.pid).children(recursive=True)
        assert len(started) > 5
        demo.send_signal(number)
        wait_until(lambda: END in shown.read_text(), what="an answer")
        assert demo.wait(60) == code, shown.read_text()
        assert "nothing is left running" in shown.read_text()
        wait_until(lambda: not any(process.is_running() for process in started), what="all to be gone")
    finally:
        if demo.poll() is None:
            demo.kill()


def test_a_signal_ends_the_demo_between_two_steps(monkeypatch):
    """Its handler raised an exception once, in the middle of a COMMIT: the demo ended with a traceback."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr(demo, "_signals", [])
    try:
        demo.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        wait_until(lambda: len(demo._signals) == 2, what="both signals")
        with pytest.raises(demo.Ended) as ended:
            demo.pause(60)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert ended.value.number == signal.SIGTERM

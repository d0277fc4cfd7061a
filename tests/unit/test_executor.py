"""Package to outcome: whatever a task does, an outcome comes of it, and the process is as it was before."""

from __future__ import annotations

import asyncio
import contextvars
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from django_q.signals import post_execute_in_worker, pre_execute

from tenant_q.exceptions import TaskTimeout, UnknownFunction
from tenant_q.lifecycle import execute as execute_module
from tenant_q.lifecycle.execute import execute, running
from tenant_q.lifecycle.time_limits import timeout_of
from tenant_q.package.build import build
from tenant_q.package.outcome import Outcome, give_up

HERE = __name__
LONG = 1.0  # what a task may take when its timeout does not work


def run(func: Any, *args: Any, attempt: int = 1, **keywords: Any) -> Outcome:
    return execute(build(func, args, keywords, schema="acme_corp"), attempt=attempt)


@pytest.fixture
def receive():
    """Connect receivers that are gone after the test."""
    connected = []

    def connect(signal: Any, receiver: Callable[..., Any]) -> None:
        signal.connect(receiver, weak=False)
        connected.append((signal, receiver))

    yield connect
    for a_signal, receiver in connected:
        a_signal.disconnect(receiver)


# Tasks


class Unshowable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")


class Exiting(Exception):
    def __str__(self) -> str:
        sys.exit(1)


class OwnBase(BaseException):
    pass


def do(error: Any) -> None:
    raise error


def recurse() -> None:
    recurse()


def from_another() -> None:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


def wait_with(swallow: Any) -> str:
    """Run until the timeout, or for long; go on after what `swallow` names."""
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except swallow:
            pass
    return "not interrupted"


def busy() -> str:
    end = time.monotonic() + LONG
    while time.monotonic() < end:
        pass
    return "not interrupted"


def wait_in_finally() -> str:
    try:
        return busy()
    finally:
        time.sleep(0)


async def wait_async() -> str:
    await asyncio.sleep(LONG)
    return "not interrupted"


async def double(value: int) -> int:
    await asyncio.sleep(0)
    return value * 2


async def fail_async(error: Any) -> None:
    await asyncio.sleep(0)
    raise error


def gives_a_coroutine(value: int) -> Any:
    return double(value)


def keywords(**given: Any) -> dict[str, Any]:
    return given


def its_package() -> str:
    package = running.get()
    assert package is not None
    return package.id


CONTEXT: contextvars.ContextVar[str] = contextvars.ContextVar("test", default="as before")


def set_context() -> None:
    CONTEXT.set("changed by a task")


def rearm() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, 1000)


not_a_function = 5


class Space:
    @staticmethod
    def method() -> str:
        return "method"


# Success


def test_a_result():
    before = timezone.now()
    outcome = run("tests.tasks.add", 1, b=2, attempt=3)
    assert (outcome.success, outcome.result, outcome.attempt) == (True, 3, 3)
    assert (outcome.death, outcome.error) == (None, None)
    assert before <= outcome.started <= outcome.stopped <= timezone.now()
    assert outcome.package.schema == "acme_corp"


def test_the_worker_time_is_measured():
    outcome = run("time.sleep", 0.02)
    assert outcome.seconds >= 0.02
    assert outcome.stopped - outcome.started >= timedelta(seconds=0.02)


@pytest.mark.parametrize(
    ("func", "args", "result"),
    [
        ("math.floor", (1.5,), 1),
        ("print", (), None),
        (f"{HERE}.Space.method", (), "method"),
        (f"{HERE}.double", (4,), 8),
        (f"{HERE}.gives_a_coroutine", (4,), 8),
        (double, (4,), 8),
        (max, (1, 2), 2),
        (Space.method, (), "method"),
    ],
)
def test_functions_of_every_kind(func, args, result):
    outcome = run(func, *args)
    assert (outcome.success, outcome.result) == (True, result)


def test_keywords_reach_the_function():
    assert run(f"{HERE}.keywords", delay=5, name="n", timeout=3).result == {"delay": 5, "name": "n"}


def test_a_task_knows_its_package():
    outcome = run(f"{HERE}.its_package")
    assert outcome.result == outcome.package.id
    assert running.get() is None


def test_context_variables_end_with_the_task():
    assert run(f"{HERE}.set_context").success
    assert CONTEXT.get() == "as before"


# Deaths


@pytest.mark.parametrize(
    ("func", "args", "death", "text"),
    [
        ("tests.tasks.fail", ("broken",), "ValueError", "broken : Traceback"),
        ("tests.tasks.exit_now", (), "TaskExited", "TaskExited: the task called sys.exit(3) : Traceback"),
        (f"{HERE}.do", (SystemExit(),), "TaskExited", "TaskExited: the task called sys.exit(None)"),
        (f"{HERE}.do", (KeyboardInterrupt(),), "TaskInterrupted", "TaskInterrupted: the task raised KeyboardInterrupt"),
        (
            f"{HERE}.do",
            (asyncio.CancelledError(),),
            "CoroutineCancelled",
            "CoroutineCancelled: the task raised CancelledError",
        ),
        (f"{HERE}.do", (MemoryError(),), "TaskOutOfMemory", "TaskOutOfMemory: the task raised MemoryError"),
        (f"{HERE}.do", (GeneratorExit(),), "GeneratorExit", " : Traceback"),
        (f"{HERE}.do", (OwnBase("own"),), "OwnBase", "own : Traceback"),
        (f"{HERE}.do", (Unshowable(),), "Unshowable", "<Unshowable whose text cannot be shown> : Traceback"),
        (f"{HERE}.do", (5,), "TypeError", "exceptions must derive from BaseException"),
        (f"{HERE}.do", (ExceptionGroup("two", [ValueError("a"), KeyError("b")]),), "ExceptionGroup", "two"),
        (f"{HERE}.recurse", (), "RecursionError", "maximum recursion depth"),
        ("tests.tasks.add", (), "TypeError", "add() missing 1 required positional argument: 'a'"),
        ("tests.tasks.add", (1, 2, 3), "TypeError", "add() takes from 1 to 2 positional arguments"),
        ("tests.tasks.unpicklable", (), "UnpicklableResult", "tests.tasks.unpicklable returned a lock that cannot be"),
        ("tests.tasks.no_such", (), "UnknownFunction", "Function tests.tasks.no_such is not defined; check the path"),
        ("no.such.module", (), "UnknownFunction", "Function no.such.module is not defined"),
        ("no_such", (), "UnknownFunction", "Function no_such is not defined"),
        ("?", (), "UnknownFunction", "Function ? is not defined"),
        (".", (), "UnknownFunction", "Function . is not defined"),
        (f"{HERE}.not_a_function", (), "UnknownFunction", f"Function {HERE}.not_a_function is not defined"),
        (f"{HERE}.fail_async", (ValueError("broken"),), "ValueError", "broken : Traceback"),
        (f"{HERE}.fail_async", (SystemExit(3),), "TaskExited", "TaskExited: the task called sys.exit(3)"),
        (f"{HERE}.fail_async", (asyncio.CancelledError(),), "CoroutineCancelled", "CoroutineCancelled"),
        (f"{HERE}.fail_async", (KeyboardInterrupt(),), "TaskInterrupted", "TaskInterrupted"),
    ],
)
def test_every_death_is_an_outcome(func, args, death, text):
    outcome = run(func, *args, attempt=2)
    assert not outcome.success
    assert outcome.death == death
    assert outcome.result.startswith(text)
    assert "Traceback" in outcome.result
    assert outcome.attempt == 2
    assert outcome.error is not None
    assert run("tests.tasks.add", 1).success, "and the next task runs"


def test_an_exception_whose_text_exits():
    assert run(f"{HERE}.do", Exiting()).death == "Exiting"


def test_a_failure_shows_the_whole_story():
    result = run(f"{HERE}.from_another").result
    assert result.startswith("second : Traceback")
    assert "KeyError: 'first'" in result
    assert "direct cause" in result
    assert "from_another" in result


def test_a_function_that_is_there_and_breaks_at_import_is_not_unknown(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "broken_module.py").write_text("import nothing_of_that_name\n")
    outcome = run("broken_module.task")
    assert outcome.death != "UnknownFunction"
    assert "nothing_of_that_name" in outcome.result


def test_the_error_reporter_is_told(monkeypatch):
    told = []

    class Reporter:
        def report(self) -> None:
            told.append(sys.exc_info()[1])

    monkeypatch.setattr(execute_module, "error_reporter", Reporter())
    outcome = run("tests.tasks.fail")
    assert told == [outcome.error]


def test_an_error_reporter_that_fails(monkeypatch):
    class Reporter:
        def report(self) -> None:
            raise ConnectionError("sentry is away")

    monkeypatch.setattr(execute_module, "error_reporter", Reporter())
    assert run("tests.tasks.fail").death == "ValueError"


# Timeouts


@pytest.mark.parametrize(
    ("func", "args"),
    [
        (f"{HERE}.busy", ()),
        (f"{HERE}.wait_in_finally", ()),
        (f"{HERE}.wait_with", (ValueError,)),
        pytest.param(
            f"{HERE}.wait_with",
            (Exception,),
            id="except Exception: pass",
        ),
        (f"{HERE}.wait_async", ()),
        ("time.sleep", (LONG,)),
    ],
)
def test_a_task_that_takes_too_long(func, args):
    outcome = run(func, *args, timeout=0.05)
    assert (outcome.success, outcome.death) == (False, "TaskTimeout")
    assert "Task exceeded maximum timeout value (0.05 seconds)" in outcome.result


def test_a_timeouts_traceback_shows_where_the_task_was():
    assert "in busy" in run(f"{HERE}.busy", timeout=0.05).result


def test_the_settings_timeout(settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"timeout": 7}
    for keywords, seconds in (({}, 7), ({"timeout": 3}, 3), ({"timeout": None}, None), ({"timeout": -1}, None)):
        assert timeout_of(build("tests.tasks.add", (), keywords, schema="acme_corp")) == seconds
    settings.Q_CLUSTER = {}
    assert timeout_of(build("tests.tasks.add", (), {}, schema="acme_corp")) is None


@pytest.mark.parametrize(
    ("func", "args"),
    [
        ("tests.tasks.add", (1,)),
        ("tests.tasks.fail", ()),
        ("tests.tasks.exit_now", ()),
        (f"{HERE}.busy", ()),
        (f"{HERE}.wait_async", ()),
        (f"{HERE}.rearm", ()),
    ],
)
def test_the_alarm_is_as_it_was(func, args):
    def own(signum: int, frame: Any) -> None:
        raise AssertionError("the alarm rang after the task")

    before = signal.signal(signal.SIGALRM, own)
    try:
        run(func, *args, timeout=0.05)
        assert signal.getsignal(signal.SIGALRM) is own
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_outside_the_main_thread_there_is_no_alarm():
    outcomes = []
    thread = threading.Thread(target=lambda: outcomes.append(run("time.sleep", 0.05, timeout=0.01)))
    thread.start()
    thread.join()
    assert outcomes[0].success


# Signals


def test_receivers_are_told(receive):
    seen: list[Any] = []
    receive(pre_execute, lambda func, task, **_: seen.append(("pre", func, task["id"], "result" in task)))
    receive(
        post_execute_in_worker, lambda func, task, **_: seen.append(("post", func, task["result"], task["success"]))
    )
    done = run(double, 2)
    assert seen == [("pre", double, done.package.id, False), ("post", double, 4, True)]
    assert "result" not in done.package.task, "what travels is not changed"
    seen.clear()
    failed = run("tests.tasks.fail")
    assert seen[1] == ("post", None, failed.result, False)


@pytest.mark.parametrize("error", [ValueError("the receiver is broken"), KeyboardInterrupt(), SystemExit(1)])
def test_a_task_whose_receiver_of_pre_execute_breaks_does_not_run(receive, error):
    ran: list[int] = []
    receive(pre_execute, lambda **_: do(error))
    outcome = execute(build(ran.append, (1,), {}, schema="acme_corp"))
    assert not outcome.success
    assert not ran
    assert "Traceback" in outcome.result


def broken_receiver(error: BaseException) -> Callable[..., Any]:
    return lambda **_: do(error)


@pytest.mark.parametrize("func", ["tests.tasks.nothing", "tests.tasks.fail"])
@pytest.mark.parametrize(
    "error",
    [
        ValueError("the receiver is broken"),
        pytest.param(
            SystemExit(1),
        ),
    ],
)
def test_a_broken_receiver_of_post_execute_in_worker_is_an_outcome(receive, func, error):
    receive(post_execute_in_worker, broken_receiver(error))
    outcome = run(func)
    assert not outcome.success
    assert "Traceback" in outcome.result


# Packages that are not run


def test_giving_up_is_an_outcome_with_the_reason():
    package = build("tests.tasks.fail", (), {}, schema="acme_corp")
    outcome = give_up(package, UnknownFunction("it is gone"), attempt=3)
    assert (outcome.success, outcome.death, outcome.result) == (False, "UnknownFunction", "UnknownFunction: it is gone")
    assert (outcome.attempt, outcome.seconds, outcome.package) == (3, 0.0, package)
    assert outcome.started == outcome.stopped
    assert outcome.is_final
    assert not give_up(package, TaskTimeout("late"), is_final=False).is_final


# Async tasks are interrupted too

HEARTBEATS: list[float] = []


async def beat_until_cancelled(seconds: float) -> None:
    try:
        while True:
            HEARTBEATS.append(time.monotonic())
            await asyncio.sleep(0.01)
    finally:
        await asyncio.sleep(seconds)  # what it does to end in order
        HEARTBEATS.append(0.0)


@pytest.mark.parametrize("seconds", [0, 0.2])
def test_an_async_task_ends_with_its_timeout(seconds):
    """It runs in another thread, where no signal raises; beside the next task it must not go on."""
    HEARTBEATS.clear()
    outcome = run(f"{HERE}.beat_until_cancelled", seconds, timeout=0.1)
    beats = len(HEARTBEATS)
    assert outcome.death == "TaskTimeout"
    assert HEARTBEATS[-1] == 0.0, "its end was waited for"
    time.sleep(0.05)
    assert len(HEARTBEATS) == beats

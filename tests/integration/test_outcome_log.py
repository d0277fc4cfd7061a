"""Each failure has one record, with its exception, and Sentry makes one issue of each cause."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
import sentry_sdk
from django.db import connection

from tenant_q.exceptions import Retry
from tenant_q.lifecycle import bulk_rows
from tenant_q.operations import purging
from tenant_q.utils import QUtilities
from tests.integration.conftest import make_due, work
from tests.sentry_events import frames, raised, sentry

HERE = __name__
SEEN: list[Any] = []
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


class Shy(Exception):
    """An error whose text depends on the tenant."""

    def __str__(self) -> str:
        SEEN.append(connection.schema_name)
        return "shy"


def be_shy() -> None:
    raise Shy


async def look_up() -> None:
    await asyncio.sleep(0)
    raise KeyError("no such invoice")


def try_again() -> None:
    try:
        raise ValueError("the bank is away")
    except ValueError as error:
        raise Retry(delay=0, cause=error) from error


def call_out(text: str) -> None:
    logging.getLogger("billing").warning(text)
    sentry_sdk.set_tag("plan", text)
    sentry_sdk.set_user({"id": text})
    raise LookupError("no such plan")


def add(schema: str, func: str, *args: Any, **keywords: Any) -> str:
    return QUtilities.add_async_task(func, *args, schema_name=schema, **keywords)


@pytest.fixture
def events(worker) -> Iterator[list[Any]]:
    with sentry() as kept:
        yield kept


@pytest.fixture
def ends(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    """The records about ends of tasks, of all levels."""
    caplog.set_level(logging.DEBUG, "tenant_q")
    names = ("task.failed", "task.succeeded", "task.retry_planned")
    return lambda: [one for one in caplog.records if getattr(one, "event", "") in names]


# Records


def test_a_failure_has_one_record_with_all_that_is_known(worker, ends):
    id = add("globex_inc", "tests.tasks.fail", task_name="n")
    work(worker)
    (record,) = ends()
    assert record.levelno == logging.ERROR
    assert (record.schema, record.task_id, record.func) == ("globex_inc", id, "tests.tasks.fail")
    assert (record.attempt, record.cause) == (1, "ValueError")
    assert 0 <= record.seconds < 60
    start = f"tests.tasks.fail (n, id {id}) of globex_inc failed in attempt 1 after {record.seconds:.3f} s"
    assert record.getMessage() == f"{start}: ValueError: broken"
    assert record.exc_info[0] is ValueError
    assert "in fail" in record.exc_text


def test_a_timeout_is_logged_by_its_cause_with_the_tasks_traceback(worker, ends):
    add("acme_corp", "time.sleep", 30, timeout=1)
    work(worker)
    (record,) = ends()
    assert record.exc_info[0].__name__ == record.cause == "TaskTimeout"
    assert "run_time" not in record.exc_text
    assert "execute.py" in record.exc_text


def test_attempts_before_the_last_are_warnings(worker, ends):
    add("acme_corp", "tests.tasks.fail", "flaky", q_options={"max_attempts": 3, "retry_delay": 0})
    for _ in range(3):
        work(worker)
        make_due()
    assert [(one.levelname, one.attempt) for one in ends()] == [("WARNING", 1), ("WARNING", 2), ("ERROR", 3)]
    assert all("ValueError: flaky" in one.getMessage() for one in ends())
    assert [bool(one.exc_info) for one in ends()] == [False, False, True]


def test_a_task_that_asks_for_another_attempt_is_logged_by_its_cause(worker, ends):
    add("acme_corp", f"{HERE}.try_again")
    work(worker)
    (record,) = ends()
    assert (record.cause, record.exc_info[0]) == ("ValueError", ValueError)


def test_a_failure_without_an_exception_has_its_cause(worker, ends):
    add("acme_corp", "tests.tasks.add", 1, q_options={"expires": LONG_AGO})
    work(worker)
    (expired,) = ends()
    assert (expired.cause, expired.exc_info) == ("TaskExpired", None)
    assert "TaskExpired: it was to start before" in expired.getMessage()


def test_a_cancelled_task_is_no_error(worker, ends):
    id = add("acme_corp", "tests.tasks.add", 1)
    QUtilities.cancel(id, schema_name="acme_corp")
    work(worker)
    (record,) = ends()
    assert (record.levelno, record.cause, record.exc_info) == (logging.INFO, "TaskCancelled", None)


def test_what_a_purge_ends_is_no_error(worker, ends):
    QUtilities.create_async_tasks_chain([("tests.tasks.add", (1,)), ("tests.tasks.add", (2,))], schema_name="acme_corp")
    purging.purge("acme_corp", actor="olga")
    (record,) = ends()
    assert (record.levelno, record.cause) == (logging.INFO, "TaskPurged")


def test_an_iter_names_the_failure_of_its_part_and_its_own(worker, ends):
    QUtilities.add_async_tasks_from_iter("tests.tasks.fail", [("a",)], schema_name="acme_corp")
    work(worker)
    part, whole = ends()
    assert (part.cause, bool(part.exc_info)) == ("ValueError", True)
    assert (whole.cause, whole.exc_info) == ("IterPartFailed", None)
    assert whole.getMessage().endswith("IterPartFailed: not all of its 1 parts succeeded")


def test_a_failure_that_cannot_be_saved_yet_is_logged_once(worker, ends, monkeypatch):
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the table is locked")

    add("acme_corp", "tests.tasks.fail")
    add("acme_corp", "tests.tasks.add", 1, q_options={"expires": LONG_AGO})
    with monkeypatch.context() as patched:
        patched.setattr(bulk_rows, "save", refuse)
        worker.tick()
        worker.tick()
    make_due()
    work(worker)
    assert sorted(one.cause for one in ends()) == ["TaskExpired", "ValueError"]


@pytest.mark.parametrize(("setting", "level"), [({}, logging.DEBUG), ({"log_successes": True}, logging.INFO)])
def test_a_success_is_logged_at_the_chosen_level(worker, ends, settings, setting, level):
    settings.TENANT_Q = settings.TENANT_Q | setting
    id = add("acme_corp", "tests.tasks.add", 1, task_name="n")
    work(worker)
    (record,) = ends()
    assert (record.levelno, record.schema, record.task_id, record.attempt) == (level, "acme_corp", id, 1)
    start = f"tests.tasks.add (n, id {id}) of acme_corp succeeded in attempt 1 after"
    assert record.getMessage().startswith(start)


def test_an_error_is_shown_in_its_own_tenant_only(worker, caplog):
    """The text of an error may be a query: the log must not run it in another tenant's schema."""
    SEEN.clear()
    for schema in ("acme_corp", "globex_inc"):
        add(schema, f"{HERE}.be_shy")
        work(worker)
    assert set(SEEN[: len(SEEN) // 2]) == {"acme_corp"}
    assert set(SEEN[len(SEEN) // 2 :]) == {"globex_inc"}


# Sentry


def test_sentry_makes_one_issue_of_each_cause(worker, events):
    add("acme_corp", "tests.tasks.fail")
    add("globex_inc", "tests.tasks.exit_now")
    add("initech_llc", "tests.tasks.gone_away")
    add("acme_corp", "time.sleep", 30, timeout=1)
    add("globex_inc", f"{HERE}.look_up")
    work(worker)
    found = {raised(event)["type"]: event for event in events}
    tenants = {cause: event["tags"]["tenant"] for cause, event in found.items()}
    assert len(events) == len(found) == 5
    assert tenants == {
        "ValueError": "acme_corp",
        "TaskExited": "globex_inc",
        "UnknownFunction": "initech_llc",
        "TaskTimeout": "acme_corp",
        "KeyError": "globex_inc",
    }
    assert all(frames(event) for event in events)
    assert (frames(found["ValueError"])[-1], frames(found["KeyError"])[-1]) == ("fail", "look_up")
    assert found["ValueError"]["tags"]["func"] == found["ValueError"]["transaction"] == "tests.tasks.fail"


def test_sentry_makes_one_issue_of_one_cause_in_two_tenants(worker, events):
    for schema in ("acme_corp", "globex_inc"):
        add(schema, "tests.tasks.fail", f"of {schema}")
    work(worker)
    one, other = events
    assert (raised(one)["type"], frames(one)) == (raised(other)["type"], frames(other))
    assert {one["tags"]["tenant"], other["tags"]["tenant"]} == {"acme_corp", "globex_inc"}


def test_sentry_groups_a_failure_without_an_exception_by_function_and_cause(worker, events):
    add("acme_corp", "tests.tasks.add", 1, q_options={"expires": LONG_AGO})
    work(worker)
    (event,) = events
    assert event["fingerprint"] == ["tenant_q", "tests.tasks.add", "TaskExpired"]
    assert event["tags"]["tenant"] == "acme_corp"


def test_sentry_gets_nothing_of_another_tenants_task(worker, events):
    for schema in ("acme_corp", "globex_inc"):
        add(schema, f"{HERE}.call_out", f"of {schema}")
    add("initech_llc", "tests.tasks.fail")
    work(worker)
    assert len(events) == 3
    for event in events:
        own = event["tags"]["tenant"]
        crumbs = [crumb["message"] for crumb in event["breadcrumbs"]["values"] if crumb["category"] == "billing"]
        theirs = [f"of {own}"] if own != "initech_llc" else []
        assert crumbs == theirs
        assert event.get("user", {}).get("id", "-") == (theirs or ["-"])[0]
        assert event["tags"].get("plan", "-") == (theirs or ["-"])[0]


def test_sentry_gets_each_failure_once_beside_an_error_reporter(worker, events, monkeypatch):
    from tenant_q.lifecycle import execute

    class Reporter:
        def report(self) -> None:
            sentry_sdk.capture_exception()

    monkeypatch.setattr(execute, "error_reporter", Reporter())
    add("acme_corp", "tests.tasks.fail")
    work(worker)
    assert len(events) == 1

"""The cause, the message and the traceback of a failed task, read from the text that the executor wrote."""

from __future__ import annotations

from typing import Any

import pytest

from tenant_q.exceptions import WorkerDied
from tenant_q.lifecycle.execute import execute
from tenant_q.lifecycle.failure_text import Failure, read_failure
from tenant_q.package.build import build
from tenant_q.package.outcome import give_up


def failed(func: Any, *args: Any) -> Failure:
    package = build(func, args, {}, schema="acme_corp")
    return read_failure(execute(package).result)


def test_an_error():
    found = failed("tests.tasks.fail", "it : broke\nValue: twice")
    assert (found.cause, found.message) == ("ValueError", "it : broke\nValue: twice")
    assert found.traceback.startswith("Traceback") and found.traceback.endswith("ValueError: it : broke\nValue: twice")


def test_a_cause_of_our_own_stands_for_what_was_raised():
    found = failed("tests.tasks.exit_now")
    assert (found.cause, found.message) == ("TaskExited", "the task called sys.exit(3)")
    assert "SystemExit" in found.traceback


def test_a_function_that_is_not_there():
    found = failed("tests.tasks.gone")
    assert found.cause == "UnknownFunction" and found.message.startswith("Function tests.tasks.gone is not defined")


def test_without_a_traceback():
    package = build("tests.tasks.add", (), {}, schema="acme_corp")
    outcome = give_up(package, WorkerDied("its worker died 3 times"))
    assert read_failure(outcome.result) == Failure("WorkerDied", "its worker died 3 times", "")


@pytest.mark.parametrize("text", ["", "nothing to tell", "Traceback (most recent call last):"])
def test_other_texts_are_shown_as_they_are(text):
    found = read_failure(text)
    assert found.cause == "" and text in (found.message, found.traceback)


def test_what_a_task_says_is_not_taken_for_the_cause():
    text = 'Task: done : Traceback (most recent call last):\n  File "x", line 1, in f\nerrors.Mine: Task: done'
    assert read_failure(text).cause == "Mine"

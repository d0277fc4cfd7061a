"""A cancel's signal: an exception in the task that is meant, once, and nothing anywhere else."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tenant_q.cluster.interrupt import SIGNAL, Interrupt
from tenant_q.cluster.shared_memory import _REPORTS, Slot
from tenant_q.exceptions import CancelException
from tenant_q.lifecycle.cancel import death_of
from tenant_q.lifecycle.execute import execute
from tenant_q.package.build import build
from tenant_q.states import LONGEST_TEXT, Progress

HERE = __name__
BY_ADA = "TaskCancelled: cancelled by Ada"
NOW: list[Callable[[], Any]] = []


@pytest.fixture
def slot() -> Iterator[Slot]:
    before = signal.getsignal(SIGNAL)
    yield Slot()
    signal.signal(SIGNAL, before)
    NOW.clear()


def ring() -> None:
    os.kill(os.getpid(), SIGNAL)


def do_now() -> str:
    for act in NOW:
        act()
    return "to its end"


def run(slot: Slot, *acts: Callable[[], Any], id: str = "a" * 32) -> Any:
    """Run a task that does `acts`, as a worker runs it."""
    NOW[:] = acts
    package = build(f"{HERE}.do_now", (), {}, schema="acme_corp", id=id)
    return execute(package, during=Interrupt(slot).armed(id))


def cancel(slot: Slot, id: str) -> Callable[[], None]:
    return lambda: slot.cancel({id: BY_ADA})


def test_the_task_that_is_cancelled_ends(slot):
    outcome = run(slot, cancel(slot, "a" * 32), ring)
    assert (outcome.success, outcome.death, outcome.is_final) == (False, "TaskCancelled", True)
    assert outcome.result.startswith("TaskCancelled: cancelled by Ada : Traceback")
    assert "in do_now" in outcome.result, "it shows where the task was"


def test_a_signal_that_means_another_task_does_nothing(slot):
    assert run(slot, cancel(slot, "b" * 32), ring).result == "to its end"


def test_a_signal_without_a_cancel_does_nothing(slot):
    assert run(slot, ring).result == "to its end"


def test_a_signal_that_comes_late_does_nothing(slot):
    """The task has ended, and no other has begun."""
    assert run(slot, cancel(slot, "a" * 32)).success
    ring()
    assert run(slot, ring, id="b" * 32).success


def test_the_task_is_interrupted_once(slot):
    """What it does then to end in order is not interrupted again."""
    ended = []

    def end_in_order() -> None:
        try:
            ring()
        finally:
            ring()
            ended.append("in order")

    assert run(slot, cancel(slot, "a" * 32), end_in_order).death == "TaskCancelled"
    assert ended == ["in order"]


def test_a_task_that_takes_the_signal_has_it_for_itself_only(slot):
    def take() -> None:
        signal.signal(SIGNAL, signal.SIG_IGN)

    assert run(slot, take, cancel(slot, "a" * 32), ring).success
    assert run(slot, ring, id="a" * 32).death == "TaskCancelled"


def test_except_exception_lets_it_through(slot):
    def swallow() -> None:
        try:
            ring()
        except Exception:
            pytest.fail("it was swallowed")

    assert run(slot, cancel(slot, "a" * 32), swallow).death == "TaskCancelled"


def test_nobody_who_is_not_armed_is_interrupted(slot):
    interrupt = Interrupt(slot)
    slot.cancel({"a" * 32: BY_ADA})
    ring()
    with pytest.raises(CancelException, match="cancelled by Ada"), interrupt.armed("a" * 32):
        ring()
    ring()


# The slot


def test_a_slot_knows_what_was_cancelled(slot):
    reasons = {f"{n:032}": f"TaskCancelled: {n}" for n in range(3)}
    slot.cancel(reasons)
    assert {id: slot.cancellation(id) for id in reasons} == reasons
    assert slot.cancellation("x" * 32) is None
    slot.cancel({})
    assert slot.cancellation(f"{0:032}") is None


def test_a_verdict_too_long_for_a_slot_is_cut_between_characters(slot):
    slot.cancel({"a" * 32: f"TaskCancelled: {'ä' * 200}"})
    assert slot.cancellation("a" * 32) == f"TaskCancelled: {'ä' * 104}"


def test_a_slot_tells_a_task_from_its_hook(slot):
    labels = {"task_id": "a" * 32, "schema": "s", "func": "f"}
    slot.start(labels, None)
    assert slot.task == "a" * 32
    slot.finish()
    assert slot.task is None
    slot.occupy(labels, None)
    assert (slot.running, slot.task) == ("a" * 32, None)


def test_a_slot_tells_the_last_progress(slot):
    assert slot.progress is None
    slot.report_progress("a" * 32, Progress(0.25, "first"))
    slot.report_progress("a" * 32, Progress(0.5, "ä" * LONGEST_TEXT))
    times, id, progress = slot.progress
    assert (times, id, progress.fraction) == (4, "a" * 32, 0.5)
    assert progress.text == "ä" * (LONGEST_TEXT // 2)


def test_progress_is_not_read_while_it_is_told(slot, monkeypatch):
    slot.report_progress("a" * 32, Progress(0.25))
    seen = []
    put = slot._put

    def look_and_put(at: int, number: int) -> None:
        put(at, number)
        seen.append(slot.progress)

    monkeypatch.setattr(slot, "_put", look_and_put)
    slot.report_progress("a" * 32, Progress(0.5))
    assert seen == [None, (4, "a" * 32, Progress(0.5))]


def test_an_interrupt_while_progress_is_told_leaves_the_next_readable(slot):
    slot.report_progress("a" * 32, Progress(0.25))
    slot._put(_REPORTS, 3)  # as an interrupt between the two leaves it
    assert slot.progress is None
    slot.report_progress("b" * 32, Progress(0.5))
    assert slot.progress == (4, "b" * 32, Progress(0.5))


def test_a_verdict_names_a_cause():
    assert repr(death_of(BY_ADA)) == "TaskCancelled('cancelled by Ada')"
    assert repr(death_of("it took too long")) == "TaskTimeout('it took too long')"

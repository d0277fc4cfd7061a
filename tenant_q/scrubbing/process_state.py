"""What a task can change in its process besides its connections: noted before it, and put back after it.

`process_aspects` lists it. What cannot be put back ends the worker after the task, once for each function and
cause in the life of a cluster. What an import changes belongs to the process; what the kernel keeps is put back anyway.
Looking costs some microseconds. So only what hits any next task is looked at after each task; what another tenant would
see, at the end of a tenant's slice; and what is dear and seldom, at the end of a batch.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tenant_q.scrubbing.process_aspects import BATCH_ASPECTS, SLICE_ASPECTS, TASK_ASPECTS, Aspect
from tenant_q.scrubbing.shared_set import SharedSet
from tenant_q.support.forks import is_installed
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.process_state")


class _Noted:
    """The values of some aspects, as they were noted."""

    def __init__(self, aspects: Sequence[Aspect]) -> None:
        self.aspects = aspects
        self.looks = [aspect.look for aspect in aspects]
        self.values: list[Any] = []

    def is_as_it_is(self) -> bool:
        try:
            return [look() for look in self.looks] == self.values
        except Exception:  # something is not what it was at all
            return False

    def note(self) -> None:
        """Take what is there as what is to be there."""
        for aspect in self.aspects:
            aspect.prepare()
        self.values = [aspect.snapshot() for aspect in self.aspects]

    def note_imported(self) -> None:
        """Note again only the aspects that an import may change."""
        for place, aspect in enumerate(self.aspects):
            if aspect.by_import:
                aspect.prepare()
                self.values[place] = aspect.snapshot()

    def changed(self) -> list[int]:
        """The places of the aspects that are not as they were."""
        return [n for n, (look, was) in enumerate(zip(self.looks, self.values, strict=True)) if not _is(look, was)]


def _is(look: Callable[[], Any], was: Any) -> bool:
    try:
        return bool(look() == was)
    except Exception:
        return False


_tasks = _Noted(TASK_ASPECTS)
_slices = _Noted(SLICE_ASPECTS)
_batches = _Noted(BATCH_ASPECTS)
_ALL = (_tasks, _slices, _batches)
_modules = -1  # how many were loaded; -1 where nothing is watched
_spoiled = False
# The functions of the slice and of the batch, with the labels of the last task of each.
_in_slice: dict[str, Mapping[str, str]] = {}
_in_batch: dict[str, Mapping[str, str]] = {}
# Of what a process, and of what a cluster, has said once.
_told: set[tuple[str, str]] = set()
_replaced = SharedSet()


def share() -> None:
    """Let all processes that are forked from here on know together for what a worker was replaced."""
    global _replaced
    _replaced = SharedSet()


def note() -> None:
    """From here on, know what tasks change. Call it in the main thread of a worker before each batch.

    In a process of the cluster only tasks, and threads that they left, change anything: what is noted stays noted.
    """
    global _modules
    if _modules != -1 and is_installed():
        return
    if _modules != len(sys.modules) or not all(noted.is_as_it_is() for noted in _ALL):
        for noted in _ALL:
            noted.note()
        _modules = len(sys.modules)


def forget() -> None:
    """Put nothing back until `note()` is called again."""
    global _modules
    _modules = -1
    _in_slice.clear()
    _in_batch.clear()


def after_import() -> None:
    """A task's function is found and not called yet: what importing it has changed is the process's."""
    if _modules != len(sys.modules) and _modules != -1 and threading.current_thread() is threading.main_thread():
        _note_imports()


def _note_imports() -> None:
    global _modules
    _modules = len(sys.modules)
    for noted in _ALL:
        noted.note_imported()


def restore(labels: Mapping[str, str] | None, *, is_last: bool = True) -> None:
    """Put back what a task, hook or receiver changed.

    Parameters: `labels`, of the task, for the log; `is_last`, whether other code than its tenant's tasks may run next.
    """
    if _modules == -1:
        return
    if labels is not None:
        _in_slice[labels["func"]] = labels
    if _modules != len(sys.modules):
        _note_imports()
    if not _tasks.is_as_it_is():
        _restore(_tasks, labels)
    if is_last:
        restore_after_slice()


def restore_after_slice() -> None:
    """Put back what a tenant's tasks changed that another tenant would see."""
    if _modules == -1:
        return
    if not _slices.is_as_it_is():
        _restore(_slices, _labels_of(_in_slice), _in_slice)
    _in_batch.update(_in_slice)
    _in_slice.clear()


def restore_after_batch() -> None:
    """Put back what the tasks of a batch changed that is not looked at before."""
    if _modules != -1 and not _batches.is_as_it_is():
        _restore(_batches, _labels_of(_in_batch), _in_batch)
    _in_batch.clear()


def _labels_of(ran: Mapping[str, Mapping[str, str]]) -> Mapping[str, str] | None:
    """Whose doing it is: that of the one function that has run, or of one of several."""
    if len(ran) == 1:
        return next(iter(ran.values()))
    return {"func": f"One of {', '.join(sorted(ran))}"} if ran else None


def is_spoiled() -> bool:
    """Whether this process is to make way for a new one, since something cannot be put back."""
    return _spoiled


def _restore(noted: _Noted, labels: Mapping[str, str] | None, suspects: Collection[str] = ()) -> None:
    """Put back what is not as it was noted.

    Parameters: `labels`, of the task that did it, for the log; `suspects`, the functions one of which did it, if
    they are several.
    """
    for place in noted.changed():
        aspect, was = noted.aspects[place], noted.values[place]
        try:
            what = aspect.put_back(was)
            is_back = aspect.look() == was or aspect.is_repaired()
        except Exception as error:
            what, is_back = f"{type(error).__name__}: {error}", False
        if is_back:
            noted.values[place] = aspect.snapshot()
            if what is not None:
                _tell(aspect.name, what, labels)
        else:
            noted.values[place] = aspect.snapshot()
            _replace(aspect.name, what, labels, suspects)


def _tell(name: str, what: str, labels: Mapping[str, str] | None) -> None:
    func, schema, id = _who(labels)
    if (func, name) not in _told:
        _told.add((func, name))
        details = f" ({what})" if what else ""
        logger.warning(
            "%s of %s (%s) changed %s%s, which is put back", func, schema, id, name, details, extra=_extra(labels, name)
        )


def _replace(name: str, what: str | None, labels: Mapping[str, str] | None, suspects: Collection[str] = ()) -> None:
    """Have the worker make way for a new one, unless one was for the same function and cause before.

    Each suspect counts as a cause: the ways in which functions come together in batches are too many to count.
    """
    global _spoiled
    func, schema, id = _who(labels)
    details = f" ({what})" if what else ""
    new = [one for one in suspects or [func] if _replaced.add(f"{one}\n{name}")]
    if new:
        _spoiled = True
        text = "%s of %s (%s) changed %s%s, which cannot be put back, so the worker is replaced"
    elif (func, name) in _told:
        return
    else:
        text = (
            "%s of %s (%s) changed %s%s, which cannot be put back. A worker was replaced for that before, so this one "
            "goes on as it is; the function must not change it"
        )
    _told.add((func, name))
    logger.warning(text, func, schema, id, name, details, extra=_extra(labels, name))


def _who(labels: Mapping[str, str] | None) -> tuple[str, str, str]:
    known = labels or {}
    return known.get("func", "A receiver"), known.get("schema", "some tenant"), known.get("task_id", "-")


def _extra(labels: Mapping[str, str] | None, name: str) -> dict[str, str]:
    return {**(labels or {}), "changed": name}

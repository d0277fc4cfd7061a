"""Note the state of the process before a task, and restore it afterwards. `sessions` does so for connections.

`process_aspects` lists the aspects of this state. If one cannot be restored, the worker is replaced after the task,
once for each function and cause in the life of a cluster. A change by an import stays, unless the kernel keeps that
aspect. Each check costs some microseconds. So only what affects any next task is checked after each task. What another
tenant would see is checked at the end of a tenant's slice, and what is rare and expensive at the end of a batch.
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
    """The noted state of the process, in some of its aspects."""

    def __init__(self, aspects: Sequence[Aspect]) -> None:
        self.aspects = aspects
        self.looks = [aspect.look for aspect in aspects]
        self.values: list[Any] = []

    def is_unchanged(self) -> bool:
        """Return whether the state of the process is as noted."""
        try:
            return [look() for look in self.looks] == self.values
        except Exception:  # a value cannot even be compared
            return False

    def note(self) -> None:
        """Note the present state of the process."""
        for aspect in self.aspects:
            aspect.prepare()
        self.values = [aspect.snapshot() for aspect in self.aspects]

    def note_imported(self) -> None:
        """Note the present state of the process where an import may change it."""
        for place, aspect in enumerate(self.aspects):
            if aspect.by_import:
                aspect.prepare()
                self.values[place] = aspect.snapshot()

    def changed(self) -> list[int]:
        """Return the positions of the aspects in which the state of the process has changed."""
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
_modules = -1  # the number of loaded modules; -1 if nothing is noted
_spoiled = False
# The functions that ran in the slice and in the batch, each with the log labels of its last task.
_in_slice: dict[str, Mapping[str, str]] = {}
_in_batch: dict[str, Mapping[str, str]] = {}
# What this process has already logged, and for what the cluster has replaced a worker.
_logged: set[tuple[str, str]] = set()
_replaced = SharedSet()


def share() -> None:
    """Let processes forked from now on share which changes of process state have already cost a worker."""
    global _replaced
    _replaced = SharedSet()


def note() -> None:
    """Note the present state of the process. Call it in the main thread of a worker before each batch.

    In a process of the cluster, only tasks and threads that they left change the state. So the first note stays valid.
    """
    global _modules
    if _modules != -1 and is_installed():
        return
    if _modules != len(sys.modules) or not all(noted.is_unchanged() for noted in _ALL):
        for noted in _ALL:
            noted.note()
        _modules = len(sys.modules)


def forget() -> None:
    """Forget the noted state of the process. Nothing is restored until `note()` is called again."""
    global _modules
    _modules = -1
    _in_slice.clear()
    _in_batch.clear()


def after_import() -> None:
    """Accept what the import of a task's function changed in the process. Call it before the function is called."""
    if _modules != len(sys.modules) and _modules != -1 and threading.current_thread() is threading.main_thread():
        _note_imports()


def _note_imports() -> None:
    global _modules
    _modules = len(sys.modules)
    for noted in _ALL:
        noted.note_imported()


def restore(log_labels: Mapping[str, str] | None, *, is_last: bool = True) -> None:
    """Restore the state of the process after a task, hook or receiver.

    Args:
        log_labels: The log labels of the task; None for code that belongs to no task.
        is_last: Whether code other than this tenant's tasks may run next.
    """
    if _modules == -1:
        return
    if log_labels is not None:
        _in_slice[log_labels["func"]] = log_labels
    if _modules != len(sys.modules):
        _note_imports()
    if not _tasks.is_unchanged():
        _restore_aspects(_tasks, log_labels)
    if is_last:
        restore_after_slice()


def restore_after_slice() -> None:
    """Restore the state of the process that a tenant's tasks changed and another tenant would see."""
    if _modules == -1:
        return
    if not _slices.is_unchanged():
        _restore_aspects(_slices, _labels_of(_in_slice), _in_slice)
    _in_batch.update(_in_slice)
    _in_slice.clear()


def restore_after_batch() -> None:
    """Restore the state of the process that a batch of tasks changed and earlier checks do not cover."""
    if _modules != -1 and not _batches.is_unchanged():
        _restore_aspects(_batches, _labels_of(_in_batch), _in_batch)
    _in_batch.clear()


def _labels_of(ran: Mapping[str, Mapping[str, str]]) -> Mapping[str, str] | None:
    """Return the log labels for a change of the process: of the only function that ran, or a list of suspects."""
    if len(ran) == 1:
        return next(iter(ran.values()))
    return {"func": f"One of {', '.join(sorted(ran))}"} if ran else None


def is_spoiled() -> bool:
    """Return whether this process must be replaced because its state could not be restored."""
    return _spoiled


def _restore_aspects(noted: _Noted, log_labels: Mapping[str, str] | None, suspects: Collection[str] = ()) -> None:
    """Restore the state of the process in its changed aspects.

    Args:
        noted: The aspects with their noted values.
        log_labels: The log labels of the task that changed them.
        suspects: The functions, one of which changed them, if several have run.
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
                _log(aspect.name, what, log_labels)
        else:
            noted.values[place] = aspect.snapshot()
            _replace_worker(aspect.name, what, log_labels, suspects)


def _log(name: str, what: str, log_labels: Mapping[str, str] | None) -> None:
    func, schema, id = _who(log_labels)
    if (func, name) not in _logged:
        _logged.add((func, name))
        details = f" ({what})" if what else ""
        logger.warning(
            "%s of %s (%s) changed %s%s, which is put back",
            func,
            schema,
            id,
            name,
            details,
            event="process_state.put_back",
            extra=_extra(log_labels, name),
        )


def _replace_worker(
    name: str, what: str | None, log_labels: Mapping[str, str] | None, suspects: Collection[str] = ()
) -> None:
    """Have the worker replaced whose state cannot be restored, once for each function and cause.

    Each suspect is counted by itself, because functions come together in batches in too many combinations.
    """
    global _spoiled
    func, schema, id = _who(log_labels)
    details = f" ({what})" if what else ""
    new = [one for one in suspects or [func] if _replaced.add(f"{one}\n{name}")]
    if new:
        _spoiled = True
        text = "%s of %s (%s) changed %s%s, which cannot be put back, so the worker is replaced"
    elif (func, name) in _logged:
        return
    else:
        text = (
            "%s of %s (%s) changed %s%s, which cannot be put back. A worker was replaced for that before, so this one "
            "goes on as it is; the function must not change it"
        )
    _logged.add((func, name))
    logger.warning(
        text, func, schema, id, name, details, event="process_state.replaced", extra=_extra(log_labels, name)
    )


def _who(log_labels: Mapping[str, str] | None) -> tuple[str, str, str]:
    known = log_labels or {}
    return known.get("func", "A receiver"), known.get("schema", "some tenant"), known.get("task_id", "-")


def _extra(log_labels: Mapping[str, str] | None, name: str) -> dict[str, str]:
    return {**(log_labels or {}), "changed": name}

"""The aspects of a process that a task can change, and how each is read and restored.

`look` is called often, so it is as cheap as possible, and returns the live object if there is one. For an aspect that
is expensive to read, `look` returns a mark that changes along with it.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import asyncio
import faulthandler
import gc
import locale
import os
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from typing import Any

from tenant_q.scrubbing.psycopg_adapters import GlobalAdapters
from tenant_q.scrubbing.watched_django import Receivers, Settings
from tenant_q.scrubbing.watched_limits import Limits
from tenant_q.scrubbing.watched_logging import Logging
from tenant_q.support.unix_signals import get_handler, set_handler


def _nothing() -> None:
    return None


@dataclass(frozen=True)
class Aspect:
    """One aspect of a process that a task can change.

    Attributes:
        name: Its name in log records.
        look: Returns its present value, or a mark, to be compared.
        restore: Takes the noted value and restores it. Returns what exactly was changed as a text, if that is known;
        None
            if an aspect with a mark was not changed after all.
        by_import: Whether an import may change it for good.
        prepare: Called before its value is noted.
        is_marked: Whether `look` returns a mark instead of its value.
        take: Returns its value as `look` does, to be kept; None to copy what `look` returns.
    """

    name: str
    look: Callable[[], Any]
    restore: Callable[[Any], Any]
    by_import: bool = False
    prepare: Callable[[], Any] = _nothing
    is_marked: bool = False
    take: Callable[[], Any] | None = None

    def snapshot(self) -> Any:
        """Return a copy of the present value of this aspect of the process."""
        return self.take() if self.take else _copied(self.look())

    def put_back(self, was: Any) -> str | None:
        """Restore the noted value of this aspect of the process.

        Return what was changed; empty if that is not known, None if nothing was.
        """
        found = self.restore(was)
        return found if isinstance(found, str) or self.is_marked else ""

    def is_repaired(self) -> bool:
        """Return whether this aspect counts as restored even if `look` returns another value than before."""
        return self.is_marked


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(value)
    return [_copied(one) for one in value] if type(value) is list else value


# Aspects of the kernel


def _cwd() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 (called after each task)
    except FileNotFoundError:  # it was deleted
        return None


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _restore_mask(mask: Any) -> None:
    _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)


def _runs(timer: int) -> bool:
    return bool(_signal.getitimer(timer)[0])


def _stop(timer: int, ran: bool) -> None:
    if not ran:
        _signal.setitimer(timer, 0)


def _handlers(numbers: tuple[int, ...]) -> list[Any]:
    return [*map(get_handler, numbers)]


def _restore_handlers(numbers: tuple[int, ...], handlers: list[Any]) -> str:
    changed = []
    for number, was in zip(numbers, handlers, strict=True):
        if get_handler(number) != was:
            set_handler(number, _signal.SIG_DFL if was is None else was)
            changed.append(str(signal.strsignal(number) or number))
    return ", ".join(changed)


_SIGNALS = tuple(sorted(int(number) for number in signal.valid_signals()))
# The signals that are sent in practice. For SIGALRM see `time_limits.alarm`.
_COMMON = tuple(
    int(getattr(signal, f"SIG{name}"))
    for name in ["HUP", "INT", "QUIT", "USR1", "USR2", "PIPE", "TERM", "CHLD", "CONT", "XCPU", "XFSZ", "VTALRM", "PROF"]
)
_RARE = tuple(number for number in _SIGNALS if number not in _COMMON and number != signal.SIGALRM)


def _restore_identity(_: Any) -> None:
    raise PermissionError("the former user cannot be restored")


def _restore_priority(priority: int) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, priority)


# Aspects of the interpreter


_environ = os.environ


def _variables() -> dict[Any, Any]:
    return _environ._data  # type: ignore[attr-defined,no-any-return]


def _restore_environment(was: dict[Any, Any]) -> str:
    now = _variables()
    changed = sorted(os.fsdecode(name) for name in {*now, *was} if now.get(name) != was.get(name))
    for name in changed:
        if (value := was.get(os.fsencode(name))) is None:
            del os.environ[name]
        else:
            os.environ[name] = os.fsdecode(value)
    if "TZ" in changed:
        time.tzset()
    return ", ".join(changed)  # never their values


def _restore_environ(_: Any) -> None:
    os.environ = _environ  # noqa: B003 (the object itself was replaced)


def _restore_filters(was: list[Any]) -> None:
    warnings.resetwarnings()
    warnings.filters[:] = was  # type: ignore[index]


def _restore_list(live: Callable[[], list[Any]], was: list[Any]) -> None:
    live()[:] = was


def _restore_attributes(owner: Any, names: tuple[str, ...], was: tuple[Any, ...]) -> str:
    changed = [name for name, value in zip(names, was, strict=True) if getattr(owner, name) is not value]
    for name, value in zip(names, was, strict=True):
        setattr(owner, name, value)
    return ", ".join(changed)


def _attributes(name: str, owner: Any, *names: str) -> Aspect:
    return Aspect(name, partial(attrgetter(*names), owner), partial(_restore_attributes, owner, names), by_import=True)


def _restore_collector(was: bool) -> None:
    (gc.enable if was else gc.disable)()


def _restore_fault_handler(was: bool) -> None:
    if was:
        faulthandler.enable()
    else:
        faulthandler.disable()


def _event_loop_policy() -> Any:
    """Return the policy of event loops that the process has; None for the default.

    Python makes the default policy only when it is needed.
    """
    policy = getattr(asyncio.events, "_event_loop_policy", None)
    return None if type(policy).__module__.startswith("asyncio.") else policy


def _restore_policy(was: Any) -> None:
    asyncio.set_event_loop_policy(was)


def _restore_locale(was: str) -> None:
    locale.setlocale(locale.LC_ALL, was)


_limits, _settings, _receivers, _logging, _adapters = Limits(), Settings(), Receivers(), Logging(), GlobalAdapters()

# What affects the next task, even of the same tenant: checked after each task.
TASK_ASPECTS = (
    Aspect("the timer ITIMER_PROF", partial(_runs, _signal.ITIMER_PROF), partial(_stop, _signal.ITIMER_PROF)),
    Aspect("the timer ITIMER_VIRTUAL", partial(_runs, _signal.ITIMER_VIRTUAL), partial(_stop, _signal.ITIMER_VIRTUAL)),
    Aspect("the signal mask", partial(_signal.pthread_sigmask, _signal.SIG_BLOCK, ()), _restore_mask),
    Aspect("resource limits", _limits.mark, _limits.restore, prepare=_limits.note, is_marked=True),
)  # fmt: skip

# What another tenant would see: checked before code other than this tenant's tasks runs.
SLICE_ASPECTS = (
    Aspect("signal handlers", partial(_handlers, _COMMON), partial(_restore_handlers, _COMMON), by_import=True),
    Aspect("the working directory", _cwd, os.chdir),
    Aspect("the umask", _umask, os.umask),
    Aspect("os.environ", lambda: os.environ is _environ, _restore_environ),
    Aspect("environment variables", _variables, _restore_environment, by_import=True),
    Aspect("the time zone of the C library", lambda: time.tzname, lambda _: time.tzset(), by_import=True),
    Aspect("the default socket timeout", socket.getdefaulttimeout, socket.setdefaulttimeout, by_import=True),
    Aspect("warning filters", lambda: warnings.filters, _restore_filters, by_import=True),
    _attributes("how warnings are shown", warnings, "showwarning", "formatwarning"),
    Aspect("logging", _logging.mark, _logging.restore, by_import=True, prepare=_logging.note, is_marked=True),
    Aspect("settings", _settings.mark, _settings.restore, by_import=True, prepare=_settings.note, is_marked=True),
    Aspect("signal receivers", _receivers.look, _receivers.restore, by_import=True, prepare=_receivers.find),
    Aspect("sys.path", lambda: sys.path, partial(_restore_list, lambda: sys.path), by_import=True),
    Aspect("sys.meta_path", lambda: sys.meta_path, partial(_restore_list, lambda: sys.meta_path), by_import=True),
    _attributes("streams and hooks of sys", sys, "stdout", "stderr", "stdin", "excepthook", "unraisablehook"),
    _attributes("hooks of threading", threading, "excepthook", "_trace_hook", "_profile_hook"),
    Aspect("the trace function", sys.gettrace, sys.settrace, by_import=True),
    Aspect("the profile function", sys.getprofile, sys.setprofile, by_import=True),
    Aspect("whether garbage is collected", gc.isenabled, _restore_collector, by_import=True),
    Aspect("the collector's thresholds", gc.get_threshold, lambda was: gc.set_threshold(*was), by_import=True),
    Aspect("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit, by_import=True),
    Aspect("the switch interval", sys.getswitchinterval, sys.setswitchinterval, by_import=True),
    Aspect("the digits of an int", sys.get_int_max_str_digits, sys.set_int_max_str_digits, by_import=True),
    Aspect("whether faults are handled", faulthandler.is_enabled, _restore_fault_handler, by_import=True),
)  # fmt: skip

# What changes rarely and is expensive to read: checked after each batch.
BATCH_ASPECTS = (
    Aspect("resource limits", _limits.look, _limits.restore),
    Aspect("handlers of rare signals", partial(_handlers, _RARE), partial(_restore_handlers, _RARE), by_import=True),
    Aspect("user and group", lambda: (os.getresuid(), os.getresgid()), _restore_identity),
    Aspect("the priority", partial(os.getpriority, os.PRIO_PROCESS, 0), _restore_priority),
    Aspect("the locale", partial(locale.setlocale, locale.LC_ALL), _restore_locale, by_import=True),
    Aspect("the policy of event loops", _event_loop_policy, _restore_policy, by_import=True),
    Aspect("the adapters of psycopg", _adapters.look, _adapters.restore, by_import=True, take=_adapters.take),
)  # fmt: skip

"""Schedules that code declares, with `@schedule` or in `TENANT_Q["schedules"]`. No model is imported here."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from django.apps import apps

from tenant_q.conf import conf
from tenant_q.exceptions import BadSchedule, ConfigurationError, EnqueueError
from tenant_q.package import declarations
from tenant_q.package.build import deterministic_id
from tenant_q.package.functions import is_path, stored_name
from tenant_q.package.options import name_errors, refuse_unknown, refuse_wrong_values
from tenant_q.schedules import recurrence, row_options
from tenant_q.schedules.arguments import parse_arguments
from tenant_q.schedules.recurrence import Kind
from tenant_q.support.call_checks import LONGEST_SECONDS, is_number, is_text, shown
from tenant_q.support.hints import did_you_mean

LONGEST_NAME = 100
"""The longest name of a schedule, in characters, as Django-Q2's column holds."""
MOST_MINUTES = 32767
"""The longest interval, as Django-Q2's column holds."""
COLUMNS = ("func", "hook", "args", "kwargs", "schedule_type", "minutes", "cron", "cluster", "intended_date_kwarg")
"""The columns of a tenant's row that belong to the code."""
KEYWORDS = (
    "name",
    "cron",
    "schedule_type",
    "minutes",
    "args",
    "kwargs",
    "q_options",
    "hook",
    "cluster",
    "intended_date_kwarg",
    "tenants",
    "spread",
)
"""What a schedule in code may say, besides its function."""

# A function that chooses tenants or its path, their schema names, or None for all.
Tenants = str | Iterable[str] | Callable[..., Any] | None


@dataclass(frozen=True, slots=True)
class DeclaredSchedule:
    """A schedule that code declares for every chosen tenant.

    Attributes:
        name: The name of its row in each tenant's schema.
        func: The function, or its dotted path.
        columns: The other columns of the row that belong to the code.
        args: The positional arguments.
        kwargs: The keyword arguments, with `q_options`.
        tenants: The function that chooses tenants or its path, their schema names, or None for all.
        spread: Each tenant's tasks start later by up to this number of seconds.
        place: Where it is declared, for messages.
    """

    name: str
    func: Callable[..., Any] | str
    columns: Mapping[str, Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    tenants: str | tuple[str, ...] | Callable[..., Any] | None
    spread: float
    place: str

    def row_values(self, key: str) -> dict[str, Any]:
        """Return the columns of the row of the tenant with this key, by name."""
        kwargs = dict(self.kwargs)
        if self.spread:
            options = dict(kwargs.get("q_options", {}))
            part = int(deterministic_id("spread", key, self.name)[:8], 16) / 16**8
            options["delay"] = round(options.get("delay", 0) + part * self.spread, 3)
            kwargs["q_options"] = options
        texts = {"args": _literal(self.args) if self.args else "", "kwargs": _literal(kwargs) if kwargs else ""}
        return {"func": self.stored_func(), **self.columns, **texts}

    def stored_func(self) -> str:
        """Return the text by which a row names the function: the declared name of a task, or the path."""
        if isinstance(self.func, str):
            return self.func
        declaration = declarations.find_loaded(self.func)
        return declaration.name if declaration else stored_name(self.func)

    def fingerprint(self) -> str:
        """Return a hash of what the rows of the schedule have. It is the same in each process of a release."""
        return hash_of([self.name, self.row_values(""), self.spread])


class _Registry:
    """The schedules that decorators have declared in this process, by name, each with its module."""

    def __init__(self) -> None:
        self.by_name: dict[str, tuple[str, DeclaredSchedule]] = {}
        self.declaring = threading.Lock()


_registry = _Registry()


def declare(func: Any, values: Mapping[str, Any]) -> None:
    """Declare a schedule of a function, as `@schedule` does.

    Args:
        func: A function at the top level of a module.
        values: The keywords of `@schedule`.

    Raises:
        ConfigurationError: The function has no path of its own, a value is wrong, or the name is another schedule's.
    """
    path = stored_name(func)
    if not callable(func) or isinstance(func, type) or not is_path(path) or "." in func.__qualname__:
        raise ConfigurationError(
            f"@schedule was used on {path}; use it on a function that a module defines at its top level with 'def', "
            "where a worker finds it."
        )
    made = build(func, values, f"@schedule of {path}")
    with _registry.declaring:
        _module, other = _registry.by_name.get(made.name, ("", made))
        # A module that is loaded again declares its functions again.
        if other is not made and (other.func is func or stored_name(other.func) != path):
            raise ConfigurationError(_declared_twice(made, other))
        _registry.by_name[made.name] = func.__module__, made


def _declared_twice(made: DeclaredSchedule, other: DeclaredSchedule) -> str:
    return (
        f"The schedule name {made.name!r} is declared twice, by {other.place} and by {made.place}; give one of them "
        "another name."
    )


def all_declared() -> list[DeclaredSchedule]:
    """Return the schedules that the modules `tasks` of the installed apps and the settings declare, sorted by name.

    Those in other modules are left out: they would be found only in processes that happen to import these. The modules
    have to be imported before.

    Raises:
        ConfigurationError: A schedule in the settings is wrong, or a name is declared twice.
    """
    found = {name: one for name, (module, one) in _registry.by_name.items() if _is_in_tasks(module)}
    for made in _from_settings():
        if made.name in found:
            raise ConfigurationError(_declared_twice(made, found[made.name]))
        found[made.name] = made
    return [found[name] for name in sorted(found)]


def out_of_reach() -> list[DeclaredSchedule]:
    """Return the schedules that were declared in modules where no scheduler looks for them."""
    return [one for module, one in _registry.by_name.values() if not _is_in_tasks(module)]


def _is_in_tasks(module: str) -> bool:
    homes = (f"{config.name}.tasks" for config in apps.get_app_configs())
    return any(module == home or module.startswith(f"{home}.") for home in homes)


def _from_settings() -> Iterable[DeclaredSchedule]:
    given = conf().schedules
    named: list[tuple[Any, Any]] = list(given.items()) if isinstance(given, dict) else [(None, one) for one in given]
    for number, (name, values) in enumerate(named):
        place = f"TENANT_Q['schedules'][{number if name is None else name!r}]"
        if not isinstance(values, Mapping) or not is_text(values.get("func")):
            raise ConfigurationError(f"{place} is {shown(values)}; it must be a dict with the path of a 'func'.")
        own = {key: value for key, value in values.items() if key != "func"} | ({"name": name} if name else {})
        yield build(values["func"], own, place)


def build(func: Any, values: Mapping[str, Any], place: str) -> DeclaredSchedule:
    """Return a declared schedule with these values. Raise `ConfigurationError` if it could not run.

    Args:
        func: The function, or its dotted path.
        values: The values, by the names in `KEYWORDS`.
        place: Where they are declared, for messages.
    """
    for key in values:
        if key not in KEYWORDS:
            raise ConfigurationError(f"{place} has an unknown key '{key}': {did_you_mean(key, KEYWORDS)}")
    given = {key: value for key, value in values.items() if value is not None}
    _check_values(given, place)
    try:
        if isinstance(func, str) and not is_path(func):
            raise BadSchedule(f"{func!r} is not the dotted path of a function")
        columns = {name: given.get(name) for name in ("hook", "cluster", "intended_date_kwarg")} | _recurrence(given)
        args, kwargs = _arguments(given)
    except (BadSchedule, EnqueueError) as error:
        raise ConfigurationError(f"{place} cannot run: {error}") from error
    tenants: Any = given.get("tenants")
    if tenants is not None and not isinstance(tenants, str) and not callable(tenants):
        tenants = tuple(sorted(tenants))
    name = given.get("name") or stored_name(func)
    if len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"{place} has a name of {len(name)} characters; give it a name= of at most {LONGEST_NAME}."
        )
    return DeclaredSchedule(name, func, columns, args, kwargs, tenants, float(given.get("spread", 0)), place)


def _check_values(given: Mapping[str, Any], place: str) -> None:
    for key, value in given.items():
        wanted, fits = _WANTED[key]
        if not fits(value):
            raise ConfigurationError(f"{place} has {key}={shown(value)}; it must be {wanted}.")


def _are_schemas(value: Any) -> bool:
    return isinstance(value, list | tuple | set | frozenset) and all(map(is_text, value))


_A_TEXT = ("a text that is not empty", is_text)
_WANTED: Mapping[str, tuple[str, Callable[[Any], bool]]] = {
    "name": _A_TEXT,
    "cron": _A_TEXT,
    "schedule_type": (
        "a type of Django-Q2's Schedule other than ONCE",
        lambda value: value in [*Kind] and value != Kind.ONCE,
    ),
    "minutes": (
        f"a whole number from 1 to {MOST_MINUTES}",
        lambda value: type(value) is int and 1 <= value <= MOST_MINUTES,
    ),
    "args": ("a list or tuple of literals", lambda value: isinstance(value, list | tuple)),
    "kwargs": ("a dict of literals", lambda value: isinstance(value, dict) and "q_options" not in value),
    "q_options": ("a dict of options of the task", lambda value: isinstance(value, dict)),
    "hook": ("the dotted path of a function", lambda value: isinstance(value, str) and is_path(value)),
    "cluster": _A_TEXT,
    "intended_date_kwarg": (
        "the name of an argument",
        lambda value: isinstance(value, str) and value.isidentifier(),
    ),
    "tenants": (
        "a function that chooses tenants, its dotted path, a list of schema names, or None for all tenants",
        lambda value: callable(value) or _are_schemas(value) or (isinstance(value, str) and is_path(value)),
    ),
    "spread": ("seconds, 0 or more", lambda value: is_number(value) and 0 <= value <= LONGEST_SECONDS),
}


def _recurrence(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of the recurrence. Raises `BadSchedule`."""
    cron, minutes, kind = given.get("cron"), given.get("minutes"), given.get("schedule_type")
    implied = Kind.CRON if cron is not None else Kind.MINUTES if minutes is not None else kind
    if implied is None:
        raise BadSchedule("it does not say when; give it one of cron=, minutes= and schedule_type=")
    if (cron is not None and minutes is not None) or kind not in (None, implied):
        raise BadSchedule("it says in more than one way when; give it one of cron=, minutes= and schedule_type=")
    if cron is not None and len(cron) > LONGEST_NAME:
        raise BadSchedule(f"its cron text is longer than {LONGEST_NAME} characters")
    recurrence.next_run(implied, datetime.now(UTC), zone=ZoneInfo("UTC"), minutes=minutes, cron=cron)
    return {"schedule_type": str(implied), "minutes": minutes, "cron": cron}


def _arguments(given: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the function. Raises `BadSchedule` if they are no literals, and `EnqueueError`."""
    args, kwargs = tuple(given.get("args", ())), dict(given.get("kwargs", {}))
    if options := dict(given.get("q_options", {})):
        name_errors(options)
        kwargs["q_options"] = options
        passed_on = dict(options)
        row_options.take_out(passed_on)
        refuse_unknown(passed_on)
        refuse_wrong_values(passed_on)
        if given.get("spread") and not is_number(options.get("delay", 0)):
            raise BadSchedule("a delay beside a spread must be a number of seconds")
    parse_arguments(_literal(args) if args else "", _literal(kwargs) if kwargs else "")
    return args, kwargs


def _literal(value: Any) -> str:
    """Return the text of a literal, which is the same in each process: Python's order of sets is not."""
    if type(value) is dict:
        return "{" + ", ".join(f"{_literal(key)}: {_literal(one)}" for key, one in value.items()) + "}"
    if type(value) is set and value:
        return "{" + ", ".join(sorted(map(_literal, value))) + "}"
    if type(value) is list:
        return "[" + ", ".join(map(_literal, value)) + "]"
    if type(value) is tuple:
        return "(" + "".join(f"{_literal(one)}, " for one in value).removesuffix(" " if len(value) == 1 else ", ") + ")"
    return repr(value)


def hash_of(value: Any) -> str:
    """Return a hash of a value made of lists, dicts, texts and numbers, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def release_of(declared: Iterable[DeclaredSchedule]) -> str:
    """Return the label of a release without a name: a hash of its schedules and of the tenants that they choose."""
    return hash_of([[one.fingerprint(), _label(one.tenants)] for one in declared])


def _label(tenants: Any) -> Any:
    return stored_name(tenants) if callable(tenants) else tenants

"""Tasks that code declares with `@task`: their options, their names, and how a call finds its declaration."""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from django.apps import apps
from django.core.signals import setting_changed
from django.utils.module_loading import module_has_submodule

from tenant_q.exceptions import ConfigurationError
from tenant_q.package.enqueueing import ONLY_WHEN_ENQUEUED, moment_of
from tenant_q.package.functions import is_path, stored_name
from tenant_q.package.package import Package
from tenant_q.support.log_labels import get_logger
from tenant_q.support.moments import aware

logger = get_logger("tenant_q.declarations")

# The modules `tasks` of these packages declare no tasks of a project.
_OWN_PACKAGES = ("django", "django_q", "tenant_q", "tenant_schemas", "django_tenants")


@dataclass(frozen=True, slots=True)
class Declaration:
    """A task that code declares.

    Attributes:
        func: The function.
        path: Its dotted path.
        name: The name under which packages, rows and schedules know it: its own, or the path.
        options: The declared options of each of its tasks, as a package carries them.
        admin: Whether a tenant's staff may schedule it; None for what the project's settings say.
    """

    func: Callable[..., Any]
    path: str
    name: str
    options: Mapping[str, Any]
    admin: bool | None = None

    @property
    def callable(self) -> Callable[..., Any]:
        """What stands at the path: the function, what another decorator made of it, or what a test has put there."""
        module, _, name = self.path.rpartition(".")
        found = getattr(sys.modules.get(module), name, None)
        return found if callable(found) else self.func


class _Registry:
    """The declarations of this process, by name and by path.

    No lock is held while a module is imported: another thread may import the same module and declare its tasks.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, Declaration] = {}
        self.is_discovered = False
        # The modules `tasks` that could not be imported.
        self.errors: dict[str, Exception] = {}
        self.declaring = threading.Lock()


_registry = _Registry()
# Whether this thread discovers tasks: a module that it imports may call for a declaration.
_discovering = threading.local()


def declare(
    func: Callable[..., Any], options: Mapping[str, Any], *, name: str | None = None, admin: bool | None = None
) -> Declaration:
    """Add the declaration of a task to those of this process.

    Args:
        func: A function at the top level of a module.
        options: Its options, which must be valid.
        name: A name that stays when the function moves; None for its path.
        admin: Whether a tenant's staff may schedule it; None for what the project's settings say.

    Raises:
        ConfigurationError: The function has no path of its own, or its name is another task's.
    """
    path = _path_of(func)
    own = name or path
    if not is_path(own):
        raise ConfigurationError(
            f"@task of {path} has name={own!r}; it must be words of letters, digits and underscores with dots between."
        )
    declaration = Declaration(func, path, own, MappingProxyType(dict(options)), admin)
    with _registry.declaring:
        for known in (own, path):
            other = _registry.by_name.get(known)
            if other is not None and other.path != path:
                raise ConfigurationError(
                    f"The task name {known!r} is declared twice, by {other.path} and by {path}; give one of them "
                    "another name."
                )
        _registry.by_name |= {own: declaration, path: declaration}
    return declaration


def _path_of(func: Any) -> str:
    path = _own_path(func)
    is_at_top = is_path(path) and "." not in str(getattr(func, "__qualname__", "."))
    if not is_at_top or not callable(func) or isinstance(func, type):
        raise ConfigurationError(
            f"@task was used on {path or stored_name(func)}; use it on a function that a module defines at its top "
            "level with 'def', where a worker finds it."
        )
    return path


def _own_path(func: Any) -> str:
    """Return the dotted path that a function says of itself; an empty text if it has none."""
    module, name = getattr(func, "__module__", None), getattr(func, "__qualname__", None)
    return f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""


def find(func: Any) -> Declaration | None:
    """Return the declaration of a function, of its path or of its declared name; None for other functions.

    The modules `tasks` of the installed apps are imported before the first path is looked up.
    """
    if not isinstance(func, str):
        return _find_function(func)
    discover()
    return _registry.by_name.get(func)


def find_loaded(func: Any) -> Declaration | None:
    """Return the declaration of a function as `find`, without importing a module."""
    return _registry.by_name.get(func) if isinstance(func, str) else _find_function(func)


def complete(package: Package) -> Package:
    """Return a package with the options that its function declares and the package lacks.

    Whoever enqueued it may not have known the declaration: the module was not imported there. Options that decide how
    a package is enqueued come too late here.
    """
    declaration = find_loaded(package.func)
    if declaration is None:
        return package
    task = package.task
    missing = {
        name: value
        for name, value in declaration.options.items()
        if name not in task and name not in ONLY_WHEN_ENQUEUED
    }
    if missing.get("expires") is not None:
        missing["expires"] = moment_of(missing["expires"], aware(task["started"]))
    return Package({**missing, **task}) if missing else package


def _find_function(func: Any) -> Declaration | None:
    if not _registry.by_name:
        return None
    declaration = _registry.by_name.get(_own_path(func))
    is_its = declaration is not None and (func is declaration.func or func is declaration.callable)
    return declaration if is_its else None


def all_declared() -> Iterator[Declaration]:
    """Yield each declaration once, those in the modules `tasks` of the installed apps included."""
    discover()
    for name, declaration in list(_registry.by_name.items()):
        if name == declaration.name:
            yield declaration


def discover(*, again: bool = False) -> Mapping[str, Exception]:
    """Import the modules `tasks` of the installed apps, except those of Django, Django-Q2 and tenant_q, once.

    A module that cannot be imported declares no tasks here. Functions that other modules define go on working, so a
    call by path does not fail because of it; the system checks report it.

    Args:
        again: Whether to import the modules again that could not be imported before.

    Returns:
        The errors, by the names of the modules.
    """
    known = _registry.errors if _registry.is_discovered else None
    is_done = known is not None and not (again and known)
    if is_done or not apps.ready or getattr(_discovering, "is_on", False):
        return _registry.errors
    errors: dict[str, Exception] = {}
    _discovering.is_on = True
    try:
        if known:
            importlib.invalidate_caches()
        for module in known or _task_modules():
            try:
                importlib.import_module(module)
            except Exception as error:  # whatever the module raises
                errors[module] = error
                if known is None or repr(known[module]) != repr(error):
                    logger.exception(
                        "Could not import %s, so the tasks that it declares are unknown",
                        module,
                        event="task.undeclared",
                    )
    finally:
        _discovering.is_on = False
    _registry.errors, _registry.is_discovered = errors, True
    return errors


def _task_modules() -> Iterator[str]:
    for config in apps.get_app_configs():
        if config.name.partition(".")[0] in _OWN_PACKAGES:
            continue
        if config.module is not None and module_has_submodule(config.module, "tasks"):
            yield f"{config.name}.tasks"


def _forget(*, setting: str, **_kwargs: object) -> None:
    if setting == "INSTALLED_APPS":
        _registry.is_discovered = False


setting_changed.connect(_forget, dispatch_uid="tenant_q.declarations")

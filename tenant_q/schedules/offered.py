"""Decide which functions a tenant's staff may name in a schedule: those that the project offers.

Offered are the public functions that the modules `tasks` of the tenants' apps define, what
`TENANT_Q["admin_functions"]` adds, what `@task(admin=True)` declares, and the workflows of these apps. A path is
compared with this list and never imported to check it, because importing a module runs its code. In the public schema,
where operators work, nothing is limited. `offered_schedules` says what a schedule names besides.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

from django.apps import AppConfig, apps
from django.core.signals import setting_changed

from tenant_q import tenancy
from tenant_q.conf import conf
from tenant_q.lifecycle import execute
from tenant_q.package import declarations
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.offered")

_EVERYTHING_IN = ".*"
_OWN_PACKAGES = ("django", "django_q", "tenant_q", "tenant_schemas", "django_tenants")


_sources: list[Callable[[], Mapping[str, str]]] = []


def add_source(source: Callable[[], Mapping[str, str]]) -> None:
    """Add what else is offered to a tenant's staff, such as workflows. An app that is installed calls this.

    Args:
        source: Returns the offered paths, each with the title of its app. Nothing is imported by it.
    """
    if source not in _sources:
        _sources.append(source)


def functions() -> dict[str, list[str]]:
    """Return the paths of the offered functions, grouped by the title of their app or module."""
    groups: dict[str, set[str]] = {}
    for name, (title, module) in _modules().items():
        for public in vars(module):
            if _is_defined(module, public):
                groups.setdefault(title, set()).add(f"{name}.{public}")
    for source in _sources:
        for path, title in source().items():
            groups.setdefault(title, set()).add(path)
    known = {path for paths in groups.values() for path in paths}
    for path in _named_functions() - known:
        groups.setdefault(path.rpartition(".")[0], set()).add(path)
    _follow_declarations(groups)
    return {title: sorted(paths) for title, paths in sorted(groups.items()) if paths}


def _follow_declarations(groups: dict[str, set[str]]) -> None:
    """Add the tasks that `@task(admin=True)` offers, remove those of `admin=False`, and show declared names."""
    for declaration in declarations.all_declared():
        title = next((title for title, paths in groups.items() if declaration.path in paths), None)
        if title is not None:
            groups[title].discard(declaration.path)
        elif declaration.admin:
            module = declaration.path.rpartition(".")[0]
            title = _modules()[module][0] if module in _modules() else module
        if title is not None and declaration.admin is not False:
            groups.setdefault(title, set()).add(declaration.name)


def is_offered(path: object) -> bool:
    """Return whether a path is exactly that of an offered function. Nothing that it names is imported."""
    if not isinstance(path, str):
        return False
    declaration = declarations.find(path)
    if declaration is not None:
        if declaration.admin is not None:
            return declaration.admin
        path = declaration.path
    if path in _named_functions() or any(path in source() for source in _sources):
        return True
    name, _dot, function = path.rpartition(".")
    return name in _modules() and _is_defined(_modules()[name][1], function)


def fruitless_entries() -> Iterator[tuple[str, str]]:
    """Yield the entries of `TENANT_Q["admin_functions"]` by which no function is offered here, each with the reason."""
    for entry in conf().admin_functions:
        try:
            if entry.endswith(_EVERYTHING_IN):
                modules = list(_import_all(entry.removesuffix(_EVERYTHING_IN)))
                found = any(_is_defined(module, name) for module in modules for name in vars(module))
                reason = "" if found else "no public function is defined there"
            else:
                execute.resolve(entry)
                reason = ""
        except Exception as error:  # whatever a module raises while it is imported
            reason = f"{type(error).__name__}: {error}"
        if reason:
            yield entry, reason


def _named_functions() -> set[str]:
    return {entry for entry in conf().admin_functions if not entry.endswith(_EVERYTHING_IN)}


def _is_defined(module: ModuleType, name: str) -> bool:
    """Return whether a module defines a public function to be offered at its top level, decorated or not.

    A class, a lambda, a partial, and an alias of a function with another name or of another module do not count.
    """
    found: Any = vars(module).get(name)
    if name.startswith("_") or not _stands_at(found, module, name):
        return False
    function = inspect.unwrap(found)
    return inspect.isfunction(function) and _stands_at(function, module, name)


def _stands_at(found: Any, module: ModuleType, name: str) -> bool:
    return (getattr(found, "__module__", None), getattr(found, "__qualname__", None)) == (module.__name__, name)


@functools.cache
def _modules() -> dict[str, tuple[str, ModuleType]]:
    """Return the modules whose functions are offered, by name, each with its title. They are imported once."""
    found: dict[str, tuple[str, ModuleType]] = {}
    for config in apps.get_app_configs():
        if is_of_tenants(config):
            found |= _titled(f"{config.name}.tasks", str(config.verbose_name))
    for entry in conf().admin_functions:
        if entry.endswith(_EVERYTHING_IN):
            name = entry.removesuffix(_EVERYTHING_IN)
            found = _titled(name, name) | found
    return found


def _titled(name: str, title: str) -> dict[str, tuple[str, ModuleType]]:
    if not _is_there(name):
        return {}
    try:
        return {module.__name__: (title, module) for module in _import_all(name)}
    except Exception as error:  # whatever a module raises while it is imported
        logger.error(
            "Could not import %s, so its functions are not offered to tenants' staff: %s",
            name,
            error,
            event="schedule.functions_not_offered",
        )
        return {}


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False


def _import_all(name: str) -> Iterator[ModuleType]:
    """Import a module of offered functions and, if it is a package, its modules, except for tests and "_" names."""
    module = importlib.import_module(name)
    yield module
    for _finder, inner, _is_package in pkgutil.iter_modules(getattr(module, "__path__", ())):
        if not inner.startswith(("_", "test_")) and inner != "tests":
            yield from _import_all(f"{name}.{inner}")


def is_of_tenants(config: AppConfig) -> bool:
    """Return whether an app is one of the project's for tenants, whose code may be offered."""
    if config.name.partition(".")[0] in _OWN_PACKAGES:
        return False
    names = {config.name, f"{type(config).__module__}.{type(config).__qualname__}"}
    return not names.isdisjoint(tenancy.tenant_apps())


def _forget(*, setting: str, **_kwargs: object) -> None:
    if setting in ("TENANT_Q", "INSTALLED_APPS", "TENANT_APPS", "TENANT_TYPES"):
        _modules.cache_clear()


setting_changed.connect(_forget, dispatch_uid="tenant_q.offered")

"""Decide what a tenant's staff may name in a schedule: functions that the project offers, and harmless options.

Offered are the public functions that the modules `tasks` of the tenants' apps define, what
`TENANT_Q["admin_functions"]` adds, what `@task(admin=True)` declares, and the workflows of these apps. A path is
compared with this list and never imported to check it, because importing a module runs its code. In the public schema,
where operators work, nothing is limited.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

from django.apps import AppConfig, apps
from django.core.signals import setting_changed
from django.utils.translation import gettext as _
from django_q.models import Schedule, Task
from psycopg import sql

from tenant_q import tenancy
from tenant_q.conf import conf, site_clusters
from tenant_q.exceptions import BadSchedule, NotOffered
from tenant_q.lifecycle import execute
from tenant_q.package import declarations
from tenant_q.package.options import KEYWORD_OPTIONS
from tenant_q.package.package import CODE
from tenant_q.schedules.arguments import parse_arguments
from tenant_q.schedules.code_origin import as_declared
from tenant_q.sql import statement
from tenant_q.support.log_labels import get_logger

logger = get_logger("tenant_q.offered")

GUARDED = ("func", "hook", "args", "kwargs", "intended_date_kwarg", "cluster")
"""The fields of a schedule that determine which code runs, and with which arguments."""
HARMLESS_OPTIONS = ("task_name", "group", "ack_failure")
"""The options that staff may set. The others name code, use workers or memory of others, or hide results."""
_COMPARED = ("id", "name", "func", "hook", "args", "kwargs", "intended_date_kwarg", "cluster")
_RESERVED = {*KEYWORD_OPTIONS, "task_name", "q_options", "schema_name"}
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


def is_limited() -> bool:
    """Return whether staff may name only what is offered, because the current schema is a tenant's."""
    return tenancy.current_schema() != tenancy.public_schema()


# Functions


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


# Schedules


def problems(row: Schedule) -> Iterator[tuple[str, str]]:
    """Yield what a schedule names that is not offered to staff: the field, and a sentence. Nothing is imported."""
    if not is_offered(row.func):
        yield "func", _("%(path)s is not a function that is offered here.") % {"path": row.func or "-"}
    if row.hook and not is_offered(row.hook):
        yield "hook", _("%(path)s is not a function that is offered here.") % {"path": row.hook}
    if row.cluster and row.cluster not in site_clusters():
        yield "cluster", _("%(name)s is not a cluster of this site.") % {"name": row.cluster}
    if row.intended_date_kwarg in _RESERVED:
        yield (
            "intended_date_kwarg",
            _("%(name)s is not an argument of the function.") % {"name": row.intended_date_kwarg},
        )
    refused = _refused_options(row)
    if refused:
        yield "kwargs", _("These are options of the task that cannot be set here: %(names)s.") % {"names": refused}


def unlisted(schemas: Sequence[str]) -> list[tuple[str, Schedule, list[str]]]:
    """Return the schedules of several tenants that are not offered to their staff, with a few statements.

    Those that are as code declares them are left out.

    Args:
        schemas: The schemas as PostgreSQL names them.

    Returns:
        The schema, the row with the compared fields only, and the reasons.

    Raises:
        DatabaseError: A table is locked or cannot be read.
        ForeignCode: A table would run code of another role.
        DatabaseAway: The database cannot be reached.
    """
    if not schemas:
        return []
    parts = [
        sql.SQL(statement("staff_fields")).format(
            schema=sql.Literal(schema), table=sql.Identifier(schema, Schedule._meta.db_table)
        )
        for schema in schemas
    ]
    # Not with UNION, which would cast columns of different types, perhaps with a function of the table's owner.
    with tenancy.in_patient_transaction(), tenancy.raw_cursor() as cursor:
        tenancy.require_plain_tables(schemas, Schedule._meta.db_table)
        cursor.execute(sql.SQL(";\n").join(parts))
        found = list(cursor.fetchall())
        while cursor.nextset():
            found += cursor.fetchall()
    rows = [(schema, Schedule(**dict(zip(_COMPARED, values, strict=True)))) for schema, *values in found]
    reasons = ((schema, row, [reason for _field, reason in problems(row)]) for schema, row in rows)
    found_here = [one for one in reasons if one[2]]
    from_code = as_declared([(schema, row) for schema, row, _reasons in found_here])
    return [one for one in found_here if (one[0], one[1].pk) not in from_code]


def refuse_foreign(schema: str, row: Schedule) -> None:
    """Refuse to fire a schedule that SQL of a tenant may have written, unless the project offers what it runs.

    This applies with `TENANT_Q["isolation"]` "login", where a tenant's SQL is not trusted. Otherwise its SQL could have
    the cluster import and call what it writes into such a row.

    Args:
        schema: The schema name of the tenant.
        row: The schedule.

    Raises:
        BadSchedule: The project neither offers nor declares the function, the hook or the options.
        DatabaseAway: The database cannot be reached.
    """
    if conf().isolation != "login" or schema == tenancy.public_schema():
        return
    for _field, reason in problems(row):
        if not as_declared([(tenancy.physical_schema(schema), row)]):
            raise BadSchedule(
                f"{reason} With TENANT_Q['isolation'] 'login' only what is offered is fired: name it in "
                "TENANT_Q['admin_functions'], or declare the schedule in code."
            )
        return


def is_listed(row: Schedule) -> bool:
    """Return whether all that a schedule runs is offered to its tenant's staff: its function, hook and options."""
    return not any(_problems_for_staff(row))


def refuse_unlisted(row: Schedule) -> None:
    """Raise `NotOffered` if a schedule runs what is not offered to the staff of the current tenant."""
    if is_limited():
        for _field, reason in _problems_for_staff(row):
            raise NotOffered(reason)


def _problems_for_staff(row: Schedule) -> Iterator[tuple[str, str]]:
    """Yield the problems of a schedule of the current tenant. The options that its declaration in code has are none."""
    for field, reason in problems(row):
        if field != "kwargs" or not as_declared([(tenancy.physical_schema(tenancy.current_schema()), row)]):
            yield field, reason


def refuse_again(task: Task, origin: str | None) -> None:
    """Raise `NotOffered` if the current tenant's staff may not run a task again, because what it runs is not offered.

    A task that code enqueued may run again with the arguments of its row. A task from a schedule or the admin may only
    if its function and its hook are offered.

    Args:
        task: The row of the task.
        origin: Who enqueued it, as the row's signature says.
    """
    if origin == CODE or not is_limited():
        return
    for path in filter(None, (task.func, task.hook)):
        if not is_offered(path):
            raise NotOffered(
                _("it came from a schedule, and %(path)s is not a function that is offered here.") % {"path": path}
            )


def _refused_options(row: Schedule) -> str:
    """Return the options in a schedule's keyword arguments that are not offered to its tenant's staff."""
    try:
        _args, kwargs = parse_arguments(None, row.kwargs)
    except BadSchedule:  # such a schedule runs nothing
        return ""
    options = kwargs.get("q_options")
    names = {name for name in kwargs if name in _RESERVED - {"q_options"}}
    names |= {str(name) for name in options} if isinstance(options, dict) else set()
    return ", ".join(sorted(names - set(HARMLESS_OPTIONS)))

"""Report what is wrong with a project's settings, and how to correct it, as system checks.

`mscluster` refuses to start with the same messages.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Info, Warning, register
from django.db import connections, router
from django.utils.module_loading import import_string

from tenant_q import brokers, tenancy
from tenant_q.brokers.cache_databases import caches_in_queue_database
from tenant_q.conf import conf, pointless_keys, problems, secret_key_is_set
from tenant_q.conf.isolation import isolation_problems
from tenant_q.exceptions import ConfigurationError
from tenant_q.package import declarations
from tenant_q.schedules import code_releases, declared, offered
from tenant_q.support import workflows_app
from tenant_q.support.hints import did_you_mean

_TENANCY_PACKAGES = ("django_tenants", "tenant_schemas")


@register("tenant_q")
def check_all(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Run every system check of tenant_q, without those that depend on an earlier check that failed."""
    messages = [*_check_secret_key(), *_check_settings(), *_check_tenancy()]
    if not messages:
        messages = [*_check_apps(), *_check_broker(), *_check_cache()]
        messages += [*_check_ready_tenants(), *_check_error_reporter()]
        messages += [*_check_declarations(), *_check_admin_functions(), *_check_routers(), *_check_code_schedules()]
        messages += [*_check_release(), *_check_isolation()]
    return [*messages, *_check_pointless_keys()]


@register("tenant_q", deploy=True)
def check_catch_up(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Point out that missed runs are treated in another way than by Django-Q2, unless the project has decided.

    It belongs to `check --deploy`: a new project need not decide at once.
    """
    configured = getattr(settings, "Q_CLUSTER", None)
    if not isinstance(configured, dict) or configured.get("catch_up") is not None:
        return []
    message = "Q_CLUSTER['catch_up'] is not set: after an outage a schedule runs once, not once for each missed run."
    hint = "Set it to False to keep this, or to True for Django-Q2's default."
    return [Info(message, hint=hint, id="tenant_q.I001")]


@register("tenant_q")
def check_missing_workflows(app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check that a project which declares workflows has their app. The app's own checks run only if it is installed."""
    registry = sys.modules.get("tenant_q.workflows.registry")
    if registry is None or workflows_app.is_installed() or not any(registry.registered()):
        return []
    return [_error("Workflows are declared, and their app is not installed.", workflows_app.WAY_IN, "E015")]


def configuration_problems() -> list[str]:
    """Return the errors that the system checks find, one sentence each."""
    return [f"{message.msg} {message.hint or ''}".strip() for message in check_all() if message.is_serious()]


def _check_secret_key() -> list[CheckMessage]:
    if secret_key_is_set():
        return []
    return [_error("SECRET_KEY, which signs every task, is not set.", "Set SECRET_KEY.", "E006")]


def _check_settings() -> list[CheckMessage]:
    return [_error(sentence, None, "E004") for sentence in problems()]


def _check_tenancy() -> list[CheckMessage]:
    if not any(apps.is_installed(name) for name in _TENANCY_PACKAGES):
        hint = "Add 'django_tenants' or 'tenant_schemas' as the first of INSTALLED_APPS."
        return [_error("INSTALLED_APPS names no tenancy package.", hint, "E003")]
    alias = tenancy.database_alias()
    if alias not in connections or not hasattr(connections[alias], "set_tenant"):
        package = "django_tenants" if apps.is_installed("django_tenants") else "tenant_schemas"
        return [
            _error(
                f"DATABASES[{alias!r}] does not switch schemas.",
                f"Set its ENGINE to '{package}.postgresql_backend'.",
                "E007",
            )
        ]
    return []


def _check_apps() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if not tenancy.lists_app(tenancy.tenant_apps(), "django_q"):
        hint = "Add 'django_q' to TENANT_APPS and run `python manage.py migrate_schemas`."
        found.append(_error("django_q is not in TENANT_APPS, so tenants have no tables for their tasks.", hint, "E002"))
    if not tenancy.lists_app(tenancy.shared_apps(), "tenant_q"):
        hint = "Add 'tenant_q' to SHARED_APPS and run `python manage.py migrate_schemas --shared`."
        found.append(_error("tenant_q is not in SHARED_APPS.", hint, "E001"))
    if tenancy.tenant_table()[1] == "schema_name":
        hint = "Give the model a primary key that is never reused, such as BigAutoField or a UUID."
        found.append(
            Warning(
                "The primary key of the tenant model is the schema's name, which a later tenant may get again.",
                hint=hint,
                id="tenant_q.W005",
            )
        )
    if tenancy.public_has_tasks() and not hasattr(settings, "SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER"):
        hint = (
            "Set SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER = [] to have them fire, or to ['public'], its default, to keep "
            "them from it."
        )
        text = "django_q is in SHARED_APPS, and by default the scheduler serves no schedules of the public schema."
        found.append(Warning(text, hint=hint, id="tenant_q.W014"))
    installed = [config.name for config in apps.get_app_configs()]
    if "django_q" in installed and installed.index("tenant_q") > installed.index("django_q"):
        hint = "Put 'tenant_q' before 'django_q', so that qinfo and qmonitor count all tenants."
        found.append(Warning("tenant_q comes after django_q in INSTALLED_APPS.", hint=hint, id="tenant_q.W002"))
    return found


def _check_routers() -> list[CheckMessage]:
    """Check that database routers keep these models on the tenants' connection, the only one that clusters use."""
    alias, found = tenancy.database_alias(), []
    models = [apps.get_model("django_q", "Task"), apps.get_model("django_q", "Schedule")]
    for model in [*models, apps.get_model("tenant_q", "TenantPolicy")]:
        label, written, read = model._meta.label, router.db_for_write(model), router.db_for_read(model)
        if written != alias:
            message = f"DATABASE_ROUTERS sends writes of {label} to {written!r}, but the tenants are in {alias!r}."
            hint = f"Let the routers return {alias!r}, or None, for the apps django_q and tenant_q."
            found.append(_error(message, hint, "E011"))
        elif read != alias and read not in (conf().databases or ()):
            message = (
                f"DATABASE_ROUTERS sends reads of {label} to {read!r}, where tasks do not switch the schema, so the "
                "project's code reads the public schema there."
            )
            hint = f"Add {read!r} to TENANT_Q['databases'], or let the routers return {alias!r} for its app."
            found.append(Warning(message, hint=hint, id="tenant_q.W007"))
    return found


def _check_ready_tenants() -> list[CheckMessage]:
    path = conf().ready_tenants
    if path is None:
        return []
    try:
        function = import_string(path)
    except Exception as error:
        hint = "Name a function that takes and returns a queryset of tenants."
        return [_error(f"TENANT_Q['ready_tenants'] ({path}) cannot be imported: {error}.", hint, "E008")]
    if not callable(function):
        return [_error(f"TENANT_Q['ready_tenants'] ({path}) is not a function.", "Name a function.", "E008")]
    return []


def _check_broker() -> list[CheckMessage]:
    if brokers.uses_redis():
        return _check_redis()
    if not brokers.uses_orm():
        return []
    hint = "Set Q_CLUSTER['redis'] to a Redis or Valkey server and remove 'orm'."
    return [
        _error("mscluster does not support the Django ORM broker, whose one table is not per tenant.", hint, "E005")
    ]


def _check_redis() -> list[CheckMessage]:
    try:
        aliases = caches_in_queue_database()
    except ConfigurationError as error:
        return [_error(str(error), None, "E009")]
    hint = "Give the cache another database, such as 'redis://host:6379/1', or better its own server, which may evict."
    return [
        Warning(
            f"cache.clear() on CACHES[{alias!r}] also empties the queue, because they share a Redis database.",
            hint=hint,
            id="tenant_q.W006",
        )
        for alias in aliases
    ]


def _check_cache() -> list[CheckMessage]:
    """Check that the cache for results exists; otherwise only the first cached result would tell."""
    alias = conf().q_cluster.get("cache")
    if alias is None or alias in settings.CACHES:
        return []
    hint = f"Add it to CACHES, or correct the name: {did_you_mean(alias, settings.CACHES)}"
    return [_error(f"Q_CLUSTER['cache'] names {alias!r}, and CACHES has no such alias.", hint, "E009")]


def _check_pointless_keys() -> list[CheckMessage]:
    configured = getattr(settings, "Q_CLUSTER", None)
    if not isinstance(configured, dict):
        return []
    return [
        Warning(f"Q_CLUSTER['{key}'] has no effect on mscluster: {reason}; remove it.", id="tenant_q.W001")
        for key, reason in pointless_keys().items()
        # Brokers with their own receipts redeliver after this time.
        if key != "retry" or (not problems() and brokers.uses_redis())
    ]


def _check_error_reporter() -> list[CheckMessage]:
    """Check that error reporters are installed: Django-Q2 silently ignores one that is not."""
    found = entry_points(group="djangoq.errorreporters").names
    hint = "Install the package that provides it, such as django-q-sentry or django-q-rollbar, or remove it."
    return [
        Warning(f"Q_CLUSTER['error_reporter'] names {name!r}, which is not installed.", hint=hint, id="tenant_q.W003")
        for name in conf().q_cluster.get("error_reporter", {})
        if name not in found
    ]


def _check_declarations() -> list[CheckMessage]:
    """Check that the modules `tasks` can be imported, because the tasks that they declare are unknown otherwise."""
    hint = "Correct the module; until then its tasks are enqueued by path without their declared options."
    return [
        Warning(f"{module} cannot be imported: {type(error).__name__}: {error}.", hint=hint, id="tenant_q.W008")
        for module, error in declarations.discover().items()
    ]


def _check_admin_functions() -> list[CheckMessage]:
    """Check that each entry of `admin_functions` offers a function, and warn about those that offer none.

    It is no error: the function may only be deployed on another cluster.
    """
    hint = "Name a function by its path, or the functions of a module as 'billing.reports.*'; or remove the entry."
    return [
        Warning(f"TENANT_Q['admin_functions'] names {entry!r}: {reason}.", hint=hint, id="tenant_q.W004")
        for entry, reason in offered.fruitless_entries()
    ]


def _check_code_schedules() -> list[CheckMessage]:
    """Check the schedules in the settings, and that the scheduler finds those that decorators declare."""
    try:
        if not declarations.discover():  # otherwise the synchronization names the module that cannot be imported
            declared.all_declared()
    except ConfigurationError as error:
        return [_error(str(error), None, "E014")]
    return [
        Warning(
            f"{one.place} is in no module 'tasks' of an installed app, so the scheduler does not find it.",
            hint="Move the function, or name its path in TENANT_Q['schedules'].",
            id="tenant_q.W009",
        )
        for one in declared.out_of_reach()
    ]


def _check_release() -> list[CheckMessage]:
    label = str(conf().release or "")
    if not code_releases.is_hash(label):
        return []
    return [
        Warning(
            f"TENANT_Q['release'] is {label!r}, which looks like the hash of a commit: of two hashes, the greater "
            "one is not the newer one.",
            hint="Name the release by what grows with each deployment, such as the number or the time of its build.",
            id="tenant_q.W010",
        )
    ]


def _check_isolation() -> list[CheckMessage]:
    return [
        (Error if found.number.startswith("E") else Warning)(found.text, hint=found.hint, id=f"tenant_q.{found.number}")
        for found in isolation_problems(conf())
    ]


def _error(message: str, hint: str | None, number: str) -> CheckMessage:
    return Error(message, hint=hint, id=f"tenant_q.{number}")

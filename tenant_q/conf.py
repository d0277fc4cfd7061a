"""All settings in one lazy, typed object.

`conf()` reads `Q_CLUSTER` and `TENANT_Q` the first time it is called, and again after Django's `setting_changed`
signal (tests). Nothing is read when a module is imported, and no setting is a default argument.

`problems()` lists what is wrong with the settings; the system checks and `mscluster` show the same sentences.
"""

from __future__ import annotations

import difflib
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from keyword import iskeyword
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist

from tenant_q.exceptions import ConfigurationError
from tenant_q.support import processors
from tenant_q.support.call_checks import LONGEST_SECONDS, is_number, is_text, shown

Number = (int, float)

# Every key Django-Q2 knows, with the types a value may have.
Q_CLUSTER_KEYS: Mapping[str, tuple[type, ...]] = {
    "name": (str,),
    "cluster_name": (str,),
    "ALT_CLUSTERS": (dict,),
    "redis": (dict, str),
    "django_redis": (str,),
    "broker_class": (str,),
    "iron_mq": (dict,),
    "sqs": (dict,),
    "mongo": (dict,),
    "mongo_db": (str,),
    "orm": (str,),
    "has_replica": (bool,),
    "workers": (int,),
    "timeout": (int,),
    "save_limit": (int,),
    "save_limit_per": (str,),
    "recycle": (int,),
    "max_rss": (int,),
    "max_attempts": (int,),
    "ack_failures": (bool,),
    "bulk": (int,),
    "catch_up": (bool,),
    "scheduler": (bool,),
    "sync": (bool,),
    "cache": (str,),
    "cached": (bool, int),
    "compress": (bool,),
    "cpu_affinity": (int,),
    "error_reporter": (dict,),
    "label": (str,),
    "log_level": (str,),
    "time_zone": (str,),
    "retry": (int,),
    "queue_limit": (int,),
    "guard_cycle": Number,
    "daemonize_workers": (bool,),
    "poll": Number,
    "testing": (bool,),
}

_LEAST = {
    "workers": 1,
    "timeout": 1,
    "recycle": 1,
    "max_attempts": 0,
    "bulk": 1,
    "cpu_affinity": 0,
    "max_rss": 0,
    "cached": 0,
}
_TIMES = ("timeout", "cached", "lease", "grace", "retry_delay", "tenant_cache_seconds", "schedule_spread")
_MOST: Mapping[str, int] = dict.fromkeys(_TIMES, LONGEST_SECONDS) | {"metrics_port": 65535}
_CHOICES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "name": (is_text, "a name that is not empty"),
    "cluster_name": (is_text, "a name that is not empty"),
    "log_level": (lambda value: value in logging.getLevelNamesMapping(), "a level of Python's logging, as 'INFO'"),
    "save_limit_per": (lambda value: value in ("group", "name", "func"), "'group', 'name', 'func' or None"),
    "time_zone": (lambda value: value in available_timezones(), "a name such as 'Europe/Berlin'"),
}

# Keys of Django-Q2 that have no job here, and what does it instead.
WITHOUT_MEANING: Mapping[str, str] = {
    "retry": "leases are renewed while their worker lives, so nothing is redelivered by the clock; remove it",
    "queue_limit": "workers take small batches straight from the broker; remove it",
    "guard_cycle": "the sentinel waits on its processes instead of polling them; remove it",
    "daemonize_workers": "a worker's tasks may always start child processes; remove it",
    "poll": "it belongs to the ORM broker, which cannot be used here; remove it",
    "has_replica": "it belongs to the ORM broker, which cannot be used here; remove it",
    "testing": "it is a switch for Django-Q2's own tests; remove it",
}

# Our own keys: types and smallest value allowed.
TENANT_Q_KEYS: Mapping[str, tuple[tuple[type, ...], float | None]] = {
    "lease": (Number, 1),
    "grace": (Number, 0),
    "max_deliveries": ((int,), 1),
    "retry_delay": (Number, 0),
    "retry_backoff": (Number, 1),
    "on_commit": ((bool,), None),
    "tenant_cache_seconds": (Number, 0),
    "databases": ((list, tuple), None),
    "ready_tenants": ((str,), None),
    "schedule_spread": (Number, 0),
    "metrics_port": ((int,), 0),
    "metrics_address": ((str,), None),
    "metrics_labels": ((int,), 1),
    "admin_functions": ((list, tuple), None),
    "signed_results": ((bool,), None),
    "max_bytes": ((int,), 1),
    "max_list_bytes": ((int,), 1),
    "test_queue": ((bool,), None),
}


# Packages whose functions enqueue and call what their arguments name.
_NEVER_OFFERED = ("django_q", "tenant_q")


@dataclass(frozen=True)
class Configuration:
    """What the settings say, with every default filled in. Times are seconds."""

    site: str
    cluster: str
    q_cluster: Mapping[str, Any]
    workers: int
    timeout: int | None
    save_limit: int
    save_limit_per: str | None
    recycle: int
    max_rss: int | None
    max_attempts: int
    ack_failures: bool
    catch_up: bool
    scheduler: bool
    sync: bool
    cache: str
    cached: bool | int
    cpu_affinity: int
    time_zone: str | None
    log_level: str
    lease: float
    grace: float
    max_deliveries: int
    retry_delay: float
    retry_backoff: float
    on_commit: bool
    tenant_cache_seconds: float
    databases: tuple[str, ...] | None
    ready_tenants: str | None
    schedule_spread: float
    metrics_port: int
    metrics_address: str
    metrics_labels: int
    admin_functions: tuple[str, ...]
    signed_results: bool
    max_bytes: int
    max_list_bytes: int
    test_queue: bool
    excluded_schemas: frozenset[str]

    @property
    def zone(self) -> ZoneInfo | None:
        """The time zone of schedules; None with `USE_TZ = False`."""
        return ZoneInfo(self.time_zone) if self.time_zone else None


@cache
def conf() -> Configuration:
    """The settings in force in this process.

    Raises `ConfigurationError` naming the first problem, when the settings cannot be used.
    """
    found = problems()
    if found:
        raise ConfigurationError(found[0])
    q = q_cluster()
    ours = _set_values(getattr(settings, "TENANT_Q", None))
    databases = ours.get("databases")
    return Configuration(
        site=q.get("name", "default"),
        cluster=q.get("cluster_name", q.get("name", "default")),
        q_cluster=q,
        workers=q.get("workers") or processors.count(),
        timeout=q.get("timeout"),
        save_limit=q.get("save_limit", 250),
        save_limit_per=q.get("save_limit_per"),
        recycle=q.get("recycle", 5000),
        max_rss=q.get("max_rss"),
        max_attempts=q.get("max_attempts", 1),
        ack_failures=q.get("ack_failures", False),
        catch_up=q.get("catch_up", True),
        scheduler=q.get("scheduler", True),
        sync=q.get("sync", False),
        cache=q.get("cache", "default"),
        cached=q.get("cached", False),
        cpu_affinity=q.get("cpu_affinity", 0),
        time_zone=q.get("time_zone", settings.TIME_ZONE) if settings.USE_TZ else None,
        log_level=q.get("log_level", "INFO"),
        lease=ours.get("lease", 15),
        grace=ours.get("grace", 30),
        max_deliveries=ours.get("max_deliveries", 3),
        retry_delay=ours.get("retry_delay", 1),
        retry_backoff=ours.get("retry_backoff", 2),
        on_commit=ours.get("on_commit", False),
        tenant_cache_seconds=ours.get("tenant_cache_seconds", 30),
        databases=tuple(databases) if databases else None,
        ready_tenants=ours.get("ready_tenants"),
        schedule_spread=ours.get("schedule_spread", 0),
        metrics_port=ours.get("metrics_port", 0),
        metrics_address=ours.get("metrics_address", "127.0.0.1"),
        metrics_labels=ours.get("metrics_labels", 100),
        admin_functions=tuple(ours.get("admin_functions", ())),
        signed_results=ours.get("signed_results", False),
        max_bytes=ours.get("max_bytes", 16 * 1024 * 1024),
        max_list_bytes=ours.get("max_list_bytes", 128 * 1024 * 1024),
        test_queue=ours.get("test_queue", False),
        excluded_schemas=frozenset(getattr(settings, "SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER", ["public"])),
    )


def use_cluster(name: str | None) -> None:
    """Serve the cluster `name` from now on, here and in child processes, as `Q_CLUSTER_NAME` does."""
    if name:
        os.environ["Q_CLUSTER_NAME"] = name
        from django_q.conf import Conf  # it reads the settings when it is imported

        Conf.CLUSTER_NAME = name  # it has read the environment already
        conf.cache_clear()


def q_cluster() -> dict[str, Any]:
    """`Q_CLUSTER`, with `Q_CLUSTER_NAME` and its entry of `ALT_CLUSTERS` laid over it, as Django-Q2 does."""
    base = _set_values(getattr(settings, "Q_CLUSTER", None))
    alternatives = _set_values(base.pop("ALT_CLUSTERS", None))
    name = os.environ.get("Q_CLUSTER_NAME")
    if name and name not in (base.get("name"), base.get("cluster_name")):
        own = _set_values(alternatives.get(name))
        base |= {k: v for k, v in own.items() if k not in ("name", "cluster_name")} | {"cluster_name": name}
    return base


def site_clusters() -> list[str]:
    """Return the names of the site's clusters: its own, those in `ALT_CLUSTERS`, and the one this process serves."""
    configured = getattr(settings, "Q_CLUSTER", None) or {}
    names = [conf().site, configured.get("cluster_name"), *(configured.get("ALT_CLUSTERS") or {}), conf().cluster]
    return [name for name in dict.fromkeys(names) if name]


def _set_values(values: Any) -> dict[str, Any]:
    """The keys that have a value; None is as if the key were not there."""
    return {k: v for k, v in values.items() if v is not None} if isinstance(values, dict) else {}


def problems() -> list[str]:
    """What is wrong with the settings, one sentence each. An empty list when they can be used."""
    return [*q_cluster_problems(), *_tenant_q_problems(), *_excluded_problems()]


def pointless_keys() -> dict[str, str]:
    """The keys of `Q_CLUSTER` that are set and have no meaning here, with what takes their place."""
    present = q_cluster()
    return {key: instead for key, instead in WITHOUT_MEANING.items() if key in present}


def secret_key_is_set() -> bool:
    """Whether `SECRET_KEY`, which signs every package, is there."""
    try:
        return bool(settings.SECRET_KEY)
    except ImproperlyConfigured:
        return False


def q_cluster_problems() -> list[str]:
    """Return the problems of `Q_CLUSTER`, one sentence each."""
    configured = getattr(settings, "Q_CLUSTER", None) or {}
    if not isinstance(configured, dict):
        return [f"Q_CLUSTER is a {type(configured).__name__}; it must be a dict."]
    found = _problems_at("Q_CLUSTER", configured)
    alternatives = configured.get("ALT_CLUSTERS")
    for name, values in alternatives.items() if isinstance(alternatives, dict) else ():
        place = f"Q_CLUSTER['ALT_CLUSTERS']['{name}']"
        if not is_text(name):
            found.append(
                f"Q_CLUSTER['ALT_CLUSTERS'] names the cluster {shown(name)}; it must be a text that is not empty."
            )
        if isinstance(values, dict):
            found += _problems_at(place, values)
        else:
            found.append(f"{place} is {values!r} ({type(values).__name__}); it must be dict.")
    return found


def _problems_at(place: str, values: Mapping[str, Any]) -> list[str]:
    found = []
    for key, value in values.items():
        if key not in Q_CLUSTER_KEYS:
            found.append(_unknown(place, key, Q_CLUSTER_KEYS))
        elif value is None:
            continue
        elif not _is_a(value, Q_CLUSTER_KEYS[key]):
            found.append(_wrong_type(place, key, value, Q_CLUSTER_KEYS[key]))
        elif key == "workers" and value == 0:  # as many as there are CPUs, in Django-Q2
            continue
        elif key in _LEAST and value < _LEAST[key]:
            found.append(f"{place}['{key}'] is {value!r}; it must be at least {_LEAST[key]}.")
        elif _is_above(key, value):
            found.append(f"{place}['{key}'] is {value!r}; it must be at most {_MOST[key]}.")
        elif key in _CHOICES and not _CHOICES[key][0](value):
            found.append(f"{place}['{key}'] is {value!r}; it must be {_CHOICES[key][1]}.")
    return found


def _tenant_q_problems() -> list[str]:
    ours = getattr(settings, "TENANT_Q", None) or {}
    if not isinstance(ours, dict):
        return [f"TENANT_Q is a {type(ours).__name__}; it must be a dict."]
    found = []
    for key, value in ours.items():
        if key not in TENANT_Q_KEYS:
            found.append(_unknown("TENANT_Q", key, TENANT_Q_KEYS))
            continue
        if value is None:  # as if it were not there
            continue
        types, least = TENANT_Q_KEYS[key]
        if not _is_a(value, types):
            found.append(_wrong_type("TENANT_Q", key, value, types))
        elif least is not None and not is_number(value):
            found.append(f"TENANT_Q['{key}'] is {shown(value)}; it must be a finite number.")
        elif least is not None and value < least:
            found.append(f"TENANT_Q['{key}'] is {value!r}; it must be at least {least}.")
        elif _is_above(key, value):
            found.append(f"TENANT_Q['{key}'] is {value!r}; it must be at most {_MOST[key]}.")
        elif key == "databases":
            found += filter(None, map(_problem_of_database, value))
        elif key == "admin_functions":
            found += filter(None, map(_problem_of_function, value))
    return found


def _problem_of_function(entry: object) -> str | None:
    place = f"TENANT_Q['admin_functions'] names {entry!r}"
    parts = entry.removesuffix(".*").split(".") if isinstance(entry, str) else []
    if len(parts) < (1 if str(entry).endswith(".*") else 2) or not all(map(_is_name, parts)):
        return f"{place}; name a function by its dotted path, or a module's functions as 'billing.reports.*'."
    if parts[0] in _NEVER_OFFERED:
        return f"{place}; its functions call others by name, so offer functions of your own instead."
    return None


def _is_name(part: str) -> bool:
    return part.isascii() and part.isidentifier() and not iskeyword(part)


def _problem_of_database(alias: object) -> str | None:
    if not isinstance(alias, str) or alias not in settings.DATABASES:
        return f"TENANT_Q['databases'] names {alias!r}, which DATABASES does not have; add it or remove it."
    if not switches_schemas(alias):
        return (
            f"TENANT_Q['databases'] names {alias!r}, which does not switch schemas; set its ENGINE as the tenants' own."
        )
    return None


def switches_schemas(alias: object) -> bool:
    """Whether a database of DATABASES has the engine of a tenancy package."""
    try:
        return hasattr(connections[str(alias)], "set_tenant")
    except (ConnectionDoesNotExist, ImproperlyConfigured):
        return False


def _excluded_problems() -> list[str]:
    excluded = getattr(settings, "SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER", [])
    is_list = isinstance(excluded, list | tuple | set | frozenset)
    if not is_list or not all(isinstance(name, str) for name in excluded):
        return ["SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER must be a list of schema names, such as ['public']."]
    return []


def _is_above(key: str, value: Any) -> bool:
    return key in _MOST and value > _MOST[key]


def _unknown(place: str, key: object, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(sorted(known))}."
    return f"{place} has an unknown key '{key}': {hint}"


def _wrong_type(place: str, key: str, value: object, types: tuple[type, ...]) -> str:
    wanted = " or ".join(t.__name__ for t in types)
    return f"{place}['{key}'] is {shown(value)}; it must be {wanted}."


def _is_a(value: object, types: tuple[type, ...]) -> bool:
    # bool is an int in Python; `workers: True` is a slip.
    return isinstance(value, types) and not (isinstance(value, bool) and bool not in types)


def _forget(*, setting: str, **_: object) -> None:
    if setting in ("Q_CLUSTER", "TENANT_Q", "SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER", "DATABASES", "TIME_ZONE", "USE_TZ"):
        conf.cache_clear()


setting_changed.connect(_forget, dispatch_uid="tenant_q.conf")

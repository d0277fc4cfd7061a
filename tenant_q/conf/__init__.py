"""All settings in one lazy, typed object.

`conf()` reads `Q_CLUSTER` and `TENANT_Q` the first time it is called, and again after Django's `setting_changed`
signal (tests). Nothing is read when a module is imported, and no setting is a default argument. `table` describes every
key.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from django.conf import settings
from django.core.signals import setting_changed

from tenant_q.conf.rules import switches_schemas
from tenant_q.conf.table import ATTRIBUTES, Q_CLUSTER, Configuration
from tenant_q.conf.validation import problems, secret_key_is_set, valid_q_cluster
from tenant_q.exceptions import ConfigurationError
from tenant_q.support import processors

__all__ = [
    "Configuration",
    "conf",
    "pointless_keys",
    "problems",
    "q_cluster",
    "secret_key_is_set",
    "site_clusters",
    "switches_schemas",
    "use_cluster",
    "valid_q_cluster",
]


@cache
def conf() -> Configuration:
    """Return all settings of tenant_q in this process, as one object.

    Raises:
        ConfigurationError: The settings cannot be used; the message is the first problem.
    """
    found = problems()
    if found:
        raise ConfigurationError(found[0])
    given = {"Q_CLUSTER": q_cluster(), "TENANT_Q": _set_values(getattr(settings, "TENANT_Q", None))}
    values = {
        name: given[setting.place][setting.key]
        for name, setting in ATTRIBUTES.items()
        if setting.key in given[setting.place]
    }
    # Defaults that depend on other settings or on the machine.
    values.setdefault("cluster", values.get("site", Configuration.site))
    values["workers"] = values.get("workers") or processors.count()
    values["time_zone"] = values.get("time_zone", settings.TIME_ZONE) if settings.USE_TZ else None
    # A project may write lists.
    values["databases"] = tuple(values.get("databases", ())) or None
    for name in ("admin_functions", "open_aliases", "shared_read", "shared_write"):
        values[name] = tuple(values.get(name, ()))
    excluded = getattr(settings, "SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER", Configuration.excluded_schemas)
    return Configuration(**values, q_cluster=given["Q_CLUSTER"], excluded_schemas=frozenset(excluded))


def q_cluster() -> dict[str, Any]:
    """Return `Q_CLUSTER`, updated with the `ALT_CLUSTERS` entry that `Q_CLUSTER_NAME` names, as Django-Q2 does."""
    base = _set_values(getattr(settings, "Q_CLUSTER", None))
    alternatives = _set_values(base.pop("ALT_CLUSTERS", None))
    name = os.environ.get("Q_CLUSTER_NAME")
    if name and name not in (base.get("name"), base.get("cluster_name")):
        own = _set_values(alternatives.get(name))
        base |= {k: v for k, v in own.items() if k not in ("name", "cluster_name")} | {"cluster_name": name}
    return base


def pointless_keys() -> dict[str, str]:
    """Return the keys of `Q_CLUSTER` that are set and have no effect here, each with the reason."""
    return {key: Q_CLUSTER[key].no_effect for key in q_cluster() if key in Q_CLUSTER and Q_CLUSTER[key].no_effect}


def site_clusters() -> list[str]:
    """Return the clusters that the settings name: the site's own, `ALT_CLUSTERS`, and this process's."""
    configured = getattr(settings, "Q_CLUSTER", None) or {}
    names = [conf().site, configured.get("cluster_name"), *(configured.get("ALT_CLUSTERS") or {}), conf().cluster]
    return [name for name in dict.fromkeys(names) if name]


def use_cluster(name: str | None) -> None:
    """Use the settings of the cluster `name` from now on, here and in children, as `Q_CLUSTER_NAME` does."""
    if name:
        os.environ["Q_CLUSTER_NAME"] = name
        from django_q.conf import Conf  # it reads the settings when it is imported

        Conf.CLUSTER_NAME = name  # it has already read the environment
        conf.cache_clear()


def _set_values(values: Any) -> dict[str, Any]:
    """Return the keys of a dict of settings that have a value; one whose value is None counts as not set."""
    return {k: v for k, v in values.items() if v is not None} if isinstance(values, dict) else {}


def _forget(*, setting: str, **_: object) -> None:
    if setting in ("Q_CLUSTER", "TENANT_Q", "SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER", "DATABASES", "TIME_ZONE", "USE_TZ"):
        conf.cache_clear()


setting_changed.connect(_forget, dispatch_uid="tenant_q.conf")

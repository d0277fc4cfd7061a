"""What is wrong with a project's settings, one sentence for each problem.

The system checks and `mscluster` show the same sentences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from tenant_q.conf.setting import Setting
from tenant_q.conf.table import Q_CLUSTER, TENANT_Q
from tenant_q.support.call_checks import is_text, shown
from tenant_q.support.hints import did_you_mean


def problems() -> list[str]:
    """Validate the project's settings: return what is wrong, one sentence for each problem."""
    return [*_q_cluster_problems(), *_tenant_q_problems(), *_excluded_problems()]


def _q_cluster_problems() -> list[str]:
    """Validate the setting `Q_CLUSTER`: return what is wrong, one sentence for each problem."""
    configured = getattr(settings, "Q_CLUSTER", None) or {}
    if not isinstance(configured, dict):
        return [_not_a_dict("Q_CLUSTER", configured)]
    found = _problems_at("Q_CLUSTER", configured, Q_CLUSTER)
    alternatives = configured.get("ALT_CLUSTERS")
    for name, values in alternatives.items() if isinstance(alternatives, dict) else ():
        place = f"Q_CLUSTER['ALT_CLUSTERS']['{name}']"
        if not is_text(name):
            found.append(
                f"Q_CLUSTER['ALT_CLUSTERS'] names the cluster {shown(name)}; it must be a text that is not empty."
            )
        if isinstance(values, dict):
            found += _problems_at(place, values, Q_CLUSTER)
        else:
            found.append(f"{place} is {values!r} ({type(values).__name__}); it must be dict.")
    return found


def valid_q_cluster() -> dict[str, Any]:
    """Return the keys of the setting `Q_CLUSTER` that pass validation, or none if it is no dict.

    `ALT_CLUSTERS` counts as a whole.
    """
    configured = getattr(settings, "Q_CLUSTER", None)
    if not isinstance(configured, dict):
        return {}
    names = configured.get("ALT_CLUSTERS")
    are_valid = isinstance(names, dict) and not any(
        not isinstance(values, dict) or _problems_at("", values, Q_CLUSTER) for values in names.values()
    )
    return {
        key: value
        for key, value in configured.items()
        if not _problems_at("", {key: value}, Q_CLUSTER) and (key != "ALT_CLUSTERS" or are_valid)
    }


def secret_key_is_set() -> bool:
    """Return whether the project's settings have a `SECRET_KEY`, which signs every package."""
    try:
        return bool(settings.SECRET_KEY)
    except ImproperlyConfigured:
        return False


def _tenant_q_problems() -> list[str]:
    ours = getattr(settings, "TENANT_Q", None) or {}
    return _problems_at("TENANT_Q", ours, TENANT_Q) if isinstance(ours, dict) else [_not_a_dict("TENANT_Q", ours)]


def _excluded_problems() -> list[str]:
    excluded = getattr(settings, "SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER", [])
    is_list = isinstance(excluded, list | tuple | set | frozenset)
    if not is_list or not all(isinstance(name, str) for name in excluded):
        return ["SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER must be a list of schema names, such as ['public']."]
    return []


def _problems_at(place: str, values: Mapping[Any, Any], known: Mapping[str, Setting]) -> list[str]:
    found = []
    for key, value in values.items():
        if key not in known:
            found.append(f"{place} has an unknown key '{key}': {_hint(place, key, known)}")
        elif value is not None:
            found += known[key].problems(f"{place}['{key}']", value)
    return found


def _hint(place: str, key: object, known: Mapping[str, Setting]) -> str:
    """Return a hint about an unknown key of a setting: the setting that it belongs in, or a key like it."""
    for name, keys in (("Q_CLUSTER", Q_CLUSTER), ("TENANT_Q", TENANT_Q)):
        if key in keys and name != place.partition("[")[0]:
            return f"it belongs in {name}."
    return did_you_mean(key, known)


def _not_a_dict(name: str, value: object) -> str:
    return f"{name} is a {type(value).__name__}; it must be a dict."

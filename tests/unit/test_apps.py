"""What happens as Django loads the apps: Django-Q2 reads its settings then."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import django
from django.conf import settings
settings.Q_CLUSTER = {**settings.Q_CLUSTER, **%r}
django.setup()
from django_q.conf import Conf
from tenant_q.conf import site_clusters
print(Conf.CLUSTER_NAME, Conf.TIMEOUT, *site_clusters())
"""


def load(changes: dict[str, Any], **env: str) -> list[str]:
    """The last line that a process says which loads the apps, in words."""
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "config.settings", "Q_NAME": "shop", **env}
    command = [sys.executable, "-c", PROGRAM % (changes,)]
    done = subprocess.run(command, env=env, cwd="testproject", capture_output=True, text=True)
    return (done.stdout or done.stderr).strip().splitlines()[-1].split()


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("timeout", "60", "int"),
        ("retry", "60", "int"),
        ("workers", "four", "int"),
        ("save_limit_per", [], "str"),
    ],
)
def test_a_value_that_django_q2_trips_over_is_named(key, value, wanted):
    said = f"Q_CLUSTER['{key}'] is {value!r} ({type(value).__name__}); it must be {wanted}."
    assert load({key: value}) == ["tenant_q.exceptions.ConfigurationError:", *said.split()]


def test_a_value_with_secrets_is_not_shown():
    said = "Q_CLUSTER['error_reporter'] is int; it must be dict."
    assert load({"error_reporter": 5}) == ["tenant_q.exceptions.ConfigurationError:", *said.split()]


@pytest.mark.parametrize("alternatives", [{}, {"ALT_CLUSTERS": {"long": {"timeout": 7}, "other": {}}}])
def test_the_clusters_of_the_site_are_known_under_the_name_of_any(alternatives):
    """Django-Q2 takes ALT_CLUSTERS for granted where the environment names a cluster."""
    others = ["other"] if alternatives else []
    timeout = "7" if alternatives else "None"
    assert load(alternatives | {"timeout": None}, Q_CLUSTER_NAME="long") in (
        ["long", timeout, "shop", "long", *others],
        ["long", timeout, "shop", *others, "long"],
    )

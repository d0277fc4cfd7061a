"""What happens as Django loads the apps: Django-Q2 reads its settings then."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

MANAGE = "testproject/manage.py"
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


def check(changes: dict[str, Any]) -> str:
    """What `manage.py check` writes about these changes."""
    env = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_Q_CLUSTER": json.dumps(changes)}
    done = subprocess.run([sys.executable, MANAGE, "check"], env=env, capture_output=True, text=True)
    assert done.returncode == 1
    return done.stderr


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("timeout", "60", "int"),
        ("retry", "60", "int"),
        ("workers", "four", "int"),
        ("save_limit_per", [], "str"),
    ],
)
def test_a_value_that_django_q2_trips_over_is_an_error_of_the_check(key, value, wanted):
    shown = check({key: value})
    assert f"(tenant_q.E004) Q_CLUSTER['{key}'] is {value!r} ({type(value).__name__}); it must be {wanted}." in shown
    assert "Traceback" not in shown


def test_a_wrong_value_of_another_cluster_is_an_error_of_the_check():
    shown = check({"ALT_CLUSTERS": {"long": {"timeout": "60"}}})
    assert "(tenant_q.E004) Q_CLUSTER['ALT_CLUSTERS']['long']['timeout'] is '60'" in shown


def test_a_value_with_secrets_is_not_shown():
    assert "Q_CLUSTER['error_reporter'] is int; it must be dict." in check({"error_reporter": 5})


@pytest.mark.parametrize("alternatives", [{}, {"ALT_CLUSTERS": {"long": {"timeout": 7}, "other": {}}}])
def test_the_clusters_of_the_site_are_known_under_the_name_of_any(alternatives):
    """Django-Q2 takes ALT_CLUSTERS for granted where the environment names a cluster."""
    others = ["other"] if alternatives else []
    timeout = "7" if alternatives else "None"
    assert load(alternatives | {"timeout": None}, Q_CLUSTER_NAME="long") in (
        ["long", timeout, "shop", "long", *others],
        ["long", timeout, "shop", *others, "long"],
    )

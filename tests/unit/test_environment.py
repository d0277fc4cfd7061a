"""The settings come from the environment, and what is wrong there is an error with a way out, never a default."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tenant_q import environment
from tenant_q.conf import conf, problems
from tenant_q.conf.table import Q_CLUSTER, TENANT_Q
from tenant_q.exceptions import ConfigurationError

URL = {"REDIS_URL": "redis://localhost:6379/0"}
VALUES = {
    "NAME": ("shop", "name", "shop"),
    "WORKERS": (" 4 ", "workers", 4),
    "TIMEOUT": ("60", "timeout", 60),
    "SYNC": ("False", "sync", False),
    "SCHEDULER": ("1", "scheduler", True),
    "CACHED": ("yes", "cached", True),
    "CATCH_UP": ("3", "catch_up", 3),
    "TIME_ZONE": ("Europe/Berlin", "time_zone", "Europe/Berlin"),
    "ALT_CLUSTERS": ('{"long": {"timeout": 600}}', "ALT_CLUSTERS", {"long": {"timeout": 600}}),
    "LEASE": ("15", "lease", 15),
    "GRACE": ("2.5", "grace", 2.5),
    "ON_COMMIT": ("on", "on_commit", True),
    "DATABASES": ("replica, archive", "databases", ["replica", "archive"]),
    "ADMIN_FUNCTIONS": ("billing.reports.*", "admin_functions", ["billing.reports.*"]),
    "SCHEDULES": ('[{"func": "a.b"}]', "schedules", [{"func": "a.b"}]),
    "RELEASE": ("2026.11", "release", "2026.11"),
    "ISOLATION": ("login", "isolation", "login"),
    "ROLE_KEY": ("k" * 32, "role_key", "k" * 32),
}


def built(**variables: str) -> environment.Settings:
    return environment.settings(URL | {f"TENANT_Q_{name}": text for name, text in variables.items()})


def refused(**variables: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        built(**variables)
    return str(caught.value)


# Values


def test_without_variables_only_the_broker_is_set():
    assert environment.settings(URL) == ({"redis": URL["REDIS_URL"]}, {})


@pytest.mark.parametrize(("name", "text", "key", "value"), [(name, *rest) for name, rest in VALUES.items()], ids=VALUES)
def test_a_variable_sets_the_key_of_its_name(name, text, key, value):
    q_cluster, tenant_q = built(**{name: text})
    found = (q_cluster | tenant_q)[key]
    assert found == value and type(found) is type(value)
    assert key in (Q_CLUSTER if key in q_cluster else TENANT_Q)


def test_the_settings_are_those_that_the_cluster_reads(settings):
    settings.Q_CLUSTER, settings.TENANT_Q = built(NAME="shop", WORKERS="4", LEASE="20", SHARED_READ="shop.Plan")
    assert problems() == []
    assert (conf().site, conf().workers, conf().lease, conf().shared_read) == ("shop", 4, 20, ("shop.Plan",))


def test_every_key_with_an_effect_can_be_set_but_other_brokers():
    keys = {setting.key for setting in environment._KEYS.values()}
    left_out = {key for key in (*Q_CLUSTER, *TENANT_Q) if key not in keys}
    without_effect = {key for key, setting in Q_CLUSTER.items() if setting.no_effect}
    assert left_out == environment._OTHER_BROKERS | without_effect | {"redis"}


def test_the_process_is_asked_by_default(monkeypatch):
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    monkeypatch.setenv("TENANT_Q_WORKERS", "3")
    assert environment.settings().q_cluster == {"redis": "redis://elsewhere", "workers": 3}


# What is wrong


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("WORKERS", "four", "is 'four'; it must be a whole number."),
        ("WORKERS", "2.5", "it must be a whole number."),
        ("WORKERS", "-1", "is -1; it must be at least 0."),
        ("WORKERS", "", "is empty; give it a value, or remove it."),
        ("WORKERS", "  ", "is empty"),
        ("LEASE", "long", "it must be a number, such as 15 or 0.5."),
        ("LEASE", "0", "is 0; it must be at least 1."),
        ("LEASE", "nan", "it must be a finite number."),
        ("SYNC", "maybe", "is 'maybe'; it must be true or false."),
        ("CATCH_UP", "1", "it must be True, False, or a whole number of runs from 2 on."),
        ("CACHED", "long", "it must be true, false or a whole number."),
        ("TIME_ZONE", "Berlin", "it must be a name such as 'Europe/Berlin'."),
        ("ALT_CLUSTERS", "long", "it must be JSON: an object."),
        ("ALT_CLUSTERS", "[]", "it must be JSON: an object."),
        ("SCHEDULES", "7", "it must be JSON: a list or an object."),
        ("DATABASES", "replica,,archive", "it must be names with commas between them."),
        ("ADMIN_FUNCTIONS", "report", "names 'report'; name a function by its dotted path"),
        ("ISOLATION", "roles", "it must be 'path', 'role' or 'login'."),
        ("WOKERS", "4", "is unknown: did you mean 'TENANT_Q_WORKERS'?"),
        ("workers", "4", "is unknown: did you mean 'TENANT_Q_WORKERS'?"),
        ("REDIS", "redis://x", "is not read; set REDIS_URL instead."),
        ("ORM", "default", "remove it, or set Q_CLUSTER['orm'] in the settings module."),
        ("QUEUE_LIMIT", "5", "would have no effect: workers take small batches directly from the broker; remove it."),
    ],
)
def test_a_wrong_variable_is_named_with_the_way_out(name, text, reason):
    message = refused(**{name: text})
    assert message.startswith(f"The environment variable TENANT_Q_{name} ")
    assert reason in message


def test_every_problem_is_described():
    assert len(refused(WORKERS="x", LEASE="y", WIEGHT="1").splitlines()) == 3


@pytest.mark.parametrize(
    "url", [None, "", "localhost:6379", "http://localhost", "redis://", "redis://localhost/queue", "redis://h:port/0"]
)
def test_redis_is_never_assumed(url):
    with pytest.raises(ConfigurationError, match=r"REDIS_URL .* set it to the URL of Redis"):
        environment.settings({} if url is None else {"REDIS_URL": url})


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost/",
        "rediss://user:secret@example.com:6380/2?ssl_cert_reqs=none",
        "unix:///run/redis.sock?db=1",
    ],
)
def test_a_url_of_redis_is_passed_on(url):
    assert environment.settings({"REDIS_URL": url}).q_cluster == {"redis": url}


@pytest.mark.parametrize(("name", "text"), [("ROLE_KEY", "hunter2"), ("ERROR_REPORTER", "hunter2")])
def test_no_secret_is_shown(name, text):
    assert "secret" in refused(**{name: text})
    assert text not in refused(**{name: text})


def test_the_password_of_redis_is_not_shown():
    with pytest.raises(ConfigurationError) as caught:
        environment.settings({"REDIS_URL": "redis://:hunter2@localhost/queue"})
    assert "hunter2" not in str(caught.value)


def test_no_secret_is_shown_where_the_settings_are_checked(settings):
    settings.TENANT_Q = {"role_key": "hunter2"}
    assert [problem for problem in problems() if "secret of 7 characters" in problem and "hunter2" not in problem]
    settings.TENANT_Q = {"role_key": b"hunter2"}
    assert [problem for problem in problems() if "is bytes" in problem and "hunter2" not in problem]


# In a settings module


MODULE = """
from tenant_q import environment
Q_CLUSTER, TENANT_Q = environment.settings()
"""


def test_a_settings_module_uses_it(tmp_path):
    """While it is imported, Django's settings are not there yet, and no app is loaded."""
    (tmp_path / "configured.py").write_text(MODULE)
    code = (
        "import sys; from django.conf import settings; print(settings.Q_CLUSTER, settings.TENANT_Q); "
        "print([name for name in sys.modules if name.endswith('.models') or name.startswith('django_q')])"
    )
    env = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "DJANGO_SETTINGS_MODULE": "configured",
        "REDIS_URL": "redis://localhost",
        "TENANT_Q_LEASE": "20",
        "TENANT_Q_DATABASES": "replica",
        "TENANT_Q_ADMIN_FUNCTIONS": "a.b",
    }
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert found.stdout.splitlines() == [
        "{'redis': 'redis://localhost'} {'admin_functions': ['a.b'], 'databases': ['replica'], 'lease': 20}",
        "[]",
    ], found.stderr

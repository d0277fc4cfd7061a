"""Settings: every key is accepted, every slip is reported in one sentence, nothing is read before it is needed."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import django_q.conf
import pytest
from django.conf import settings as django_settings
from django.core.cache import InvalidCacheBackendError
from django.core.checks import Error, Warning, run_checks
from django.db import ConnectionHandler
from django.test import modify_settings

from tenant_q import checks
from tenant_q.conf import (
    conf,
    pointless_keys,
    problems,
    q_cluster,
    site_clusters,
    use_cluster,
)
from tenant_q.conf.table import Q_CLUSTER, TENANT_Q
from tenant_q.exceptions import ConfigurationError
from tenant_q.support import processors

# A good value of every key; what is None here stands under another name in `conf()`, or is Django-Q2's to read.
GOOD: dict[str, Any] = {
    "name": "shop",
    "cluster_name": "long",
    "ALT_CLUSTERS": {"short": {"timeout": 5}},
    "redis": {"host": "localhost"},
    "django_redis": "default",
    "broker_class": "shop.brokers.Own",
    "iron_mq": {"host": "x"},
    "sqs": {"aws_region": "x"},
    "mongo": {"host": "x"},
    "mongo_db": "x",
    "orm": "default",
    "has_replica": True,
    "workers": 3,
    "timeout": 7,
    "save_limit": -1,
    "save_limit_per": "group",
    "recycle": 9,
    "max_rss": 100_000,
    "max_attempts": 2,
    "ack_failures": True,
    "bulk": 10,
    "catch_up": False,
    "scheduler": False,
    "sync": True,
    "cache": "other",
    "cached": 60,
    "compress": True,
    "cpu_affinity": 1,
    "error_reporter": {"sentry": {}},
    "label": "Tasks",
    "log_level": "DEBUG",
    "time_zone": "Europe/Berlin",
    "retry": 60,
    "queue_limit": 5,
    "guard_cycle": 0.5,
    "daemonize_workers": False,
    "poll": 0.2,
    "testing": True,
}
# What Django-Q2 itself has no use for without another one.
NOT_PLAIN = {"name", "cluster_name", "ALT_CLUSTERS"}


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    """No test leaves its name of a cluster, or what was read under it."""
    monkeypatch.setenv("Q_CLUSTER_NAME", "")
    monkeypatch.delenv("Q_CLUSTER_NAME")
    conf.cache_clear()
    yield
    os.environ.pop("Q_CLUSTER_NAME", None)
    conf.cache_clear()


# Keys


def test_every_key_that_django_q2_reads_is_known():
    read = set(re.findall(r'conf\.(?:get|pop)\(\s*"(\w+)"', inspect.getsource(django_q.conf)))
    assert len(read) > 30
    assert read <= set(Q_CLUSTER)


def test_every_key_has_a_good_value_here():
    assert set(GOOD) == set(Q_CLUSTER)


@pytest.mark.parametrize("key", sorted(GOOD))
def test_each_key_is_accepted(settings, key):
    settings.Q_CLUSTER = {key: GOOD[key]}
    assert problems() == []
    read = conf()
    if key not in NOT_PLAIN and hasattr(read, key):
        assert getattr(read, key) == GOOD[key]
    elif key != "ALT_CLUSTERS":
        assert read.q_cluster[key] == GOOD[key]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("redis", "redis://localhost:6379/0"),
        ("cached", True),
        ("cached", False),
        ("guard_cycle", 1),
        ("poll", 1),
        ("workers", 0),
        ("timeout", None),
        ("max_rss", None),
        ("save_limit", 0),
        ("save_limit_per", None),
        ("save_limit_per", "name"),
        ("save_limit_per", "func"),
        ("redis", None),
    ],
)
def test_other_values_that_are_accepted(settings, key, value):
    settings.Q_CLUSTER = {key: value}
    assert problems() == []
    conf()


@pytest.mark.parametrize("value", [{"days": 0.5}, {"rows": 1}, {"days": 36500, "rows": 10}, {"days": 3, "rows": None}])
def test_outcomes_are_kept_by_age_by_number_or_both(settings, value):
    settings.TENANT_Q = {"keep_successes": value, "keep_failures": value}
    assert problems() == []
    assert conf().keep_successes == conf().keep_failures == value


def test_none_means_the_default(settings):
    settings.Q_CLUSTER, settings.TENANT_Q = {}, {}
    default = conf()
    settings.Q_CLUSTER, settings.TENANT_Q = dict.fromkeys(GOOD), dict.fromkeys(TENANT_Q)
    assert problems() == []
    assert conf() == default


def test_defaults(settings):
    settings.Q_CLUSTER = {}
    settings.TENANT_Q = {}
    del settings.SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER
    read = conf()
    assert (read.site, read.cluster) == ("default", "default")
    assert read.workers == processors.count()
    assert (read.timeout, read.save_limit, read.save_limit_per, read.recycle) == (None, 250, None, 5000)
    assert (read.catch_up, read.scheduler, read.sync, read.cached, read.cache) == (False, True, False, False, "default")
    assert (read.lease, read.grace, read.max_deliveries, read.tenant_cache_seconds) == (15, 30, 3, 30)
    assert (read.databases, read.ready_tenants, read.excluded_schemas) == (None, None, frozenset({"public"}))
    assert read.time_zone == django_settings.TIME_ZONE


@pytest.mark.parametrize("name", ["Q_CLUSTER", "TENANT_Q"])
def test_settings_may_be_missing(settings, name):
    delattr(settings, name)
    assert problems() == []
    conf()


def test_without_time_zones_schedules_are_in_local_time(settings):
    settings.USE_TZ = False
    assert conf().time_zone is None


def test_the_schedules_zone_comes_before_djangos(settings):
    settings.TIME_ZONE = "Asia/Tokyo"
    assert conf().time_zone == "Asia/Tokyo"
    settings.Q_CLUSTER = {"time_zone": "Europe/Berlin"}
    assert conf().time_zone == "Europe/Berlin"


# What is wrong


UNKNOWN = [
    ("Q_CLUSTER", {"worker": 2}, "Q_CLUSTER has an unknown key 'worker': did you mean 'workers'?"),
    ("Q_CLUSTER", {"save_limits": 2}, "Q_CLUSTER has an unknown key 'save_limits': did you mean 'save_limit'?"),
    ("Q_CLUSTER", {5: 2}, "Q_CLUSTER has an unknown key '5': known are "),
    ("Q_CLUSTER", {"zzz": 2}, "Q_CLUSTER has an unknown key 'zzz': known are ALT_CLUSTERS, "),
    (
        "Q_CLUSTER",
        {"ALT_CLUSTERS": {"long": {"time_out": 2}}},
        "Q_CLUSTER['ALT_CLUSTERS']['long'] has an unknown key 'time_out': did you mean 'timeout'?",
    ),
    ("TENANT_Q", {"leese": 2}, "TENANT_Q has an unknown key 'leese': did you mean 'lease'?"),
    ("TENANT_Q", {"zzz": 2}, "TENANT_Q has an unknown key 'zzz': known are admin_database, admin_functions, "),
]
WRONG_TYPE = [
    ("Q_CLUSTER", 5, "Q_CLUSTER is a int; it must be a dict."),
    ("Q_CLUSTER", [("workers", 2)], "Q_CLUSTER is a list; it must be a dict."),
    ("Q_CLUSTER", {"workers": "2"}, "Q_CLUSTER['workers'] is '2' (str); it must be int."),
    ("Q_CLUSTER", {"workers": True}, "Q_CLUSTER['workers'] is True (bool); it must be int."),
    ("Q_CLUSTER", {"timeout": 1.5}, "Q_CLUSTER['timeout'] is 1.5 (float); it must be int."),
    ("Q_CLUSTER", {"redis": 6379}, "Q_CLUSTER['redis'] is 6379 (int); it must be dict or str."),
    ("Q_CLUSTER", {"catch_up": "no"}, "Q_CLUSTER['catch_up'] is 'no' (str); it must be bool or int."),
    ("Q_CLUSTER", {"cached": "60"}, "Q_CLUSTER['cached'] is '60' (str); it must be bool or int."),
    ("Q_CLUSTER", {"ALT_CLUSTERS": ["long"]}, "Q_CLUSTER['ALT_CLUSTERS'] is ['long'] (list); it must be dict."),
    (
        "Q_CLUSTER",
        {"ALT_CLUSTERS": {"long": {"workers": "2"}}},
        "Q_CLUSTER['ALT_CLUSTERS']['long']['workers'] is '2' (str); it must be int.",
    ),
    ("TENANT_Q", [("lease", 2)], "TENANT_Q is a list; it must be a dict."),
    ("TENANT_Q", {"lease": "15"}, "TENANT_Q['lease'] is '15' (str); it must be int or float."),
    ("TENANT_Q", {"max_deliveries": 2.5}, "TENANT_Q['max_deliveries'] is 2.5 (float); it must be int."),
    ("TENANT_Q", {"max_deliveries": True}, "TENANT_Q['max_deliveries'] is True (bool); it must be int."),
    ("TENANT_Q", {"admin_functions": "math.pow"}, "TENANT_Q['admin_functions'] is 'math.pow' (str); it must be list"),
    ("TENANT_Q", {"signed_results": 1}, "TENANT_Q['signed_results'] is 1 (int); it must be bool."),
    ("TENANT_Q", {"ready_tenants": len}, "TENANT_Q['ready_tenants'] is <built-in function len>"),
]
TOO_SMALL = [
    ("Q_CLUSTER", {"workers": -1}, "Q_CLUSTER['workers'] is -1; it must be at least 0."),
    ("Q_CLUSTER", {"timeout": 0}, "Q_CLUSTER['timeout'] is 0; it must be at least 1."),
    ("Q_CLUSTER", {"recycle": 0}, "Q_CLUSTER['recycle'] is 0; it must be at least 1."),
    ("Q_CLUSTER", {"bulk": 0}, "Q_CLUSTER['bulk'] is 0; it must be at least 1."),
    ("TENANT_Q", {"lease": 0.5}, "TENANT_Q['lease'] is 0.5; it must be at least 1."),
    ("TENANT_Q", {"grace": -1}, "TENANT_Q['grace'] is -1; it must be at least 0."),
    ("TENANT_Q", {"max_deliveries": 0}, "TENANT_Q['max_deliveries'] is 0; it must be at least 1."),
    ("TENANT_Q", {"tenant_cache_seconds": -0.1}, "TENANT_Q['tenant_cache_seconds'] is -0.1; it must be at least 0."),
]
TOO_LARGE = [
    ("Q_CLUSTER", {"timeout": 10**30}, f"Q_CLUSTER['timeout'] is {10**30}; it must be at most 1000000000."),
    ("Q_CLUSTER", {"cached": 10**30}, f"Q_CLUSTER['cached'] is {10**30}; it must be at most 1000000000."),
    ("TENANT_Q", {"lease": 10**400}, "TENANT_Q['lease'] is 1000"),
    ("TENANT_Q", {"grace": 1e10}, "TENANT_Q['grace'] is 10000000000.0; it must be at most 1000000000."),
]
OTHER = [
    ("Q_CLUSTER", {"cached": -1}, "Q_CLUSTER['cached'] is -1; it must be at least 0."),
    ("Q_CLUSTER", {"name": ""}, "Q_CLUSTER['name'] is ''; it must be a name that is not empty."),
    ("Q_CLUSTER", {"cluster_name": " "}, "Q_CLUSTER['cluster_name'] is ' '; it must be a name that is not empty."),
    (
        "Q_CLUSTER",
        {"ALT_CLUSTERS": {"": {}}},
        "Q_CLUSTER['ALT_CLUSTERS'] names the cluster '' (str); it must be a text",
    ),
    ("Q_CLUSTER", {"log_level": "LOUD"}, "Q_CLUSTER['log_level'] is 'LOUD'; it must be a level of Python's logging"),
    (
        "Q_CLUSTER",
        {"save_limit_per": "day"},
        "Q_CLUSTER['save_limit_per'] is 'day'; it must be 'group', 'name', 'func'",
    ),
    ("TENANT_Q", {"databases": ["other"]}, "TENANT_Q['databases'] names 'other', which DATABASES does not have"),
    ("TENANT_Q", {"admin_functions": ["billing"]}, "TENANT_Q['admin_functions'] names 'billing'; name a function by"),
    ("TENANT_Q", {"admin_functions": ["*"]}, "TENANT_Q['admin_functions'] names '*'; name a function by its dotted"),
    ("TENANT_Q", {"admin_functions": ["a..b"]}, "TENANT_Q['admin_functions'] names 'a..b'; name a function by"),
    ("TENANT_Q", {"admin_functions": ["a.b "]}, "TENANT_Q['admin_functions'] names 'a.b '; name a function by"),
    ("TENANT_Q", {"admin_functions": ["a.b."]}, "TENANT_Q['admin_functions'] names 'a.b.'; name a function by"),
    ("TENANT_Q", {"admin_functions": [5]}, "TENANT_Q['admin_functions'] names 5; name a function by its dotted path"),
    (
        "TENANT_Q",
        {"admin_functions": ["django_q.tasks.*"]},
        "TENANT_Q['admin_functions'] names 'django_q.tasks.*'; its functions call others by name",
    ),
    (
        "TENANT_Q",
        {"admin_functions": ["tenant_q.utils.QUtilities.add_async_task"]},
        "TENANT_Q['admin_functions'] names 'tenant_q.utils.QUtilities.add_async_task'; its functions call others",
    ),
    *[
        ("TENANT_Q", {key: value}, f"TENANT_Q['{key}'] is {value!r}; it must be a dict with 'days'")
        for key in ("keep_successes", "keep_failures")
        for value in (
            {},
            {"days": None},
            {"days": 0},
            {"days": -1},
            {"days": 10**6},
            {"days": float("nan")},
            {"days": "30"},
            {"days": True},
            {"rows": 0},
            {"rows": 1.5},
            {"rows": 2**31},
            {"day": 30},
            {"days": 30, "age": 1},
        )
    ],
    ("TENANT_Q", {"keep_failures": 30}, "TENANT_Q['keep_failures'] is 30 (int); it must be dict."),
    ("SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER", "public", "SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER must be a list"),
    ("SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER", ["public", 5], "SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER must be a list"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), UNKNOWN + WRONG_TYPE + TOO_SMALL + TOO_LARGE + OTHER)
def test_what_is_wrong_is_told_in_one_sentence(settings, name, value, sentence):
    setattr(settings, name, value)
    found = problems()
    assert len(found) == 1
    assert found[0].startswith(sentence)
    assert "\n" not in found[0]
    with pytest.raises(ConfigurationError, match=re.escape(found[0])):
        conf()


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER", None, "SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER must be a list"),
        ("SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER", 5, "SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER must be a list"),
        ("TENANT_Q", {"databases": 5}, "TENANT_Q['databases'] is 5 (int); it must be list or tuple."),
        ("TENANT_Q", {"databases": "default"}, "TENANT_Q['databases'] is 'default' (str); it must be list or tuple."),
        ("Q_CLUSTER", {"ALT_CLUSTERS": {"long": 5}}, "Q_CLUSTER['ALT_CLUSTERS']['long'] is"),
        ("Q_CLUSTER", {"ALT_CLUSTERS": {"long": {"workers": -1}}}, "Q_CLUSTER['ALT_CLUSTERS']['long']['workers']"),
        ("Q_CLUSTER", {"time_zone": "Mars/Base"}, "Q_CLUSTER['time_zone'] is 'Mars/Base'"),
    ],
)
def test_these_are_told_in_one_sentence_too(settings, name, value, words):
    setattr(settings, name, value)
    found = problems()
    assert len(found) == 1
    assert found[0].startswith(words)


def test_every_problem_is_listed(settings):
    settings.Q_CLUSTER = {"worker": 1, "timeout": "x", "ALT_CLUSTERS": {"long": {"bulk": "x"}}}
    settings.TENANT_Q = {"leese": 1, "grace": -1}
    settings.SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER = "public"
    found = problems()
    assert len(found) == 6
    for word in ("worker", "timeout", "bulk", "leese", "grace", "SCHEMAS_TO_BE"):
        assert sum(word in sentence for sentence in found) >= 1


# Other clusters


ALTERNATIVES = {
    "name": "shop",
    "timeout": 10,
    "workers": 4,
    "ALT_CLUSTERS": {"long": {"timeout": 600, "name": "never", "cluster_name": "never"}, "empty": {}},
}


@pytest.mark.parametrize(
    ("name", "cluster", "timeout"),
    [
        (None, "shop", 10),
        ("shop", "shop", 10),
        ("long", "long", 600),
        ("empty", "empty", 10),
        ("not listed", "not listed", 10),
    ],
)
def test_the_environment_names_the_cluster(settings, monkeypatch, name, cluster, timeout):
    settings.Q_CLUSTER = ALTERNATIVES
    if name:
        monkeypatch.setenv("Q_CLUSTER_NAME", name)
    read = conf()
    assert (read.site, read.cluster, read.timeout, read.workers) == ("shop", cluster, timeout, 4)
    assert "ALT_CLUSTERS" not in q_cluster()
    assert "ALT_CLUSTERS" in django_settings.Q_CLUSTER, "the project's dict stays as it is"


@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES")
def test_databases_are_forgotten_with_the_settings(settings):
    settings.TENANT_Q = {"databases": ["replica"]}
    settings.DATABASES = settings.DATABASES | {"replica": settings.DATABASES["default"]}
    assert conf().databases == ("replica",)
    settings.DATABASES = {"default": settings.DATABASES["default"]}
    with pytest.raises(ConfigurationError, match="replica"):
        conf()


def test_a_cluster_is_chosen_by_name(settings, monkeypatch):
    monkeypatch.setattr(django_q.conf.Conf, "CLUSTER_NAME", django_q.conf.Conf.CLUSTER_NAME)
    settings.Q_CLUSTER = ALTERNATIVES
    assert conf().timeout == 10
    use_cluster(None)
    assert conf().timeout == 10
    use_cluster("long")
    assert (conf().cluster, conf().timeout) == ("long", 600)
    assert os.environ["Q_CLUSTER_NAME"] == "long", "child processes serve it too"


def test_the_clusters_own_name_is_no_alternative(settings, monkeypatch):
    settings.Q_CLUSTER = ALTERNATIVES | {"cluster_name": "long"}
    monkeypatch.setenv("Q_CLUSTER_NAME", "long")
    assert (conf().cluster, conf().timeout) == ("long", 10)


# Laziness


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("Q_CLUSTER", {"timeout": 5}, "timeout", 5),
        ("TENANT_Q", {"lease": 2}, "lease", 2),
        ("SCHEMAS_TO_BE_EXCLUDED_BY_SCHEDULER", ["a", "b"], "excluded_schemas", frozenset("ab")),
        ("TIME_ZONE", "Asia/Tokyo", "time_zone", "Asia/Tokyo"),
        ("USE_TZ", False, "time_zone", None),
    ],
)
def test_a_changed_setting_is_seen(settings, name, value, attribute, expected):
    before = getattr(conf(), attribute)
    assert before != expected
    setattr(settings, name, value)
    assert getattr(conf(), attribute) == expected


def test_nothing_is_read_at_import():
    code = "from tenant_q import conf, exceptions; from tenant_q.schedules import arguments, recurrence"
    environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


# Keys without effect


@pytest.mark.parametrize(
    "key",
    [
        "retry", "queue_limit", "guard_cycle", "daemonize_workers", "poll", "has_replica",
        "testing",
    ],
)  # fmt: skip
def test_a_key_without_effect_gets_a_warning(settings, key):
    settings.Q_CLUSTER = {"name": "shop", key: GOOD[key]}
    assert list(pointless_keys()) == [key]
    (message,) = checks.check_all()
    assert isinstance(message, Warning)
    assert message.id == "tenant_q.W001"
    assert f"Q_CLUSTER['{key}'] has no effect" in message.msg
    assert "; " in message.msg, "it gives the reason and the way out"
    assert checks.configuration_problems() == [], "existing settings keep working"


def test_retry_has_an_effect_for_a_broker_that_redelivers_by_the_clock(settings):
    settings.Q_CLUSTER = {"retry": 60, "sqs": {"aws_region": "x"}}
    assert checks.check_all() == []


def test_keys_with_an_effect_get_none(settings):
    settings.Q_CLUSTER = {"name": "shop", "workers": 2, "timeout": 3}
    assert pointless_keys() == {}


# System checks


def the_one(messages: list[Any]) -> Any:
    assert len(messages) == 1, messages
    return messages[0]


def test_the_test_projects_settings_are_right():
    assert checks.check_all() == []
    assert [m for m in run_checks(tags=["tenant_q"]) if m.id and m.id.startswith("tenant_q")] == []


@pytest.mark.seam
@pytest.mark.parametrize(
    ("name", "without", "number", "words"),
    [
        ("SHARED_APPS", "tenant_q", "E001", "tenant_q is not in SHARED_APPS"),
        ("TENANT_APPS", "django_q", "E002", "django_q is not in TENANT_APPS"),
    ],
)
def test_an_app_is_in_the_wrong_list(settings, name, without, number, words):
    setattr(settings, name, [app for app in getattr(django_settings, name) if app != without])
    message = the_one(run_checks(tags=["tenant_q"]))
    assert (type(message), message.id) == (Error, f"tenant_q.{number}")
    assert words in message.msg
    assert without in message.hint
    assert "migrate_schemas" in message.hint
    assert checks.configuration_problems() == [f"{message.msg} {message.hint}"]


@pytest.mark.parametrize("entry", ["tenant_q.apps.TenantQConfig", "tenant_q"])
def test_an_app_may_be_listed_by_its_config(settings, entry):
    settings.SHARED_APPS = [entry if app == "tenant_q" else app for app in django_settings.SHARED_APPS]
    assert checks.check_all() == []


@pytest.mark.seam
def test_no_tenancy_package():
    tenancy_package = next(app for app in django_settings.INSTALLED_APPS if app.startswith(("tenant_s", "django_t")))
    with modify_settings(INSTALLED_APPS={"remove": [tenancy_package]}):
        message = the_one(checks.check_all())
    assert message.id == "tenant_q.E003"
    assert "names no tenancy package" in message.msg
    assert "django_tenants" in message.hint


def test_wrong_settings_are_each_an_error(settings):
    settings.Q_CLUSTER = {"worker": 1}
    settings.TENANT_Q = {"leese": 1}
    messages = checks.check_all()
    assert [message.id for message in messages] == ["tenant_q.E004"] * 2
    assert [message.msg for message in messages] == problems() == checks.configuration_problems()


@pytest.mark.parametrize(
    ("q", "refused"),
    [
        ({"orm": "default"}, True),
        ({"broker_class": "django_q.brokers.orm.ORM"}, True),
        ({"orm": "default", "redis": {}}, True),
        ({"orm": "default", "broker_class": "django_q.brokers.redis_broker.Redis"}, False),
        ({"orm": None}, False),
        ({"sqs": {}}, False),
    ],
)
def test_the_orm_broker_is_refused(settings, q, refused):
    settings.Q_CLUSTER = {"name": "shop"} | q
    assert [message.id for message in checks.check_all()] == (["tenant_q.E005"] if refused else [])
    if refused:
        (message,) = checks.check_all()
        assert "does not support the Django ORM broker" in message.msg
        assert "Set Q_CLUSTER['redis']" in message.hint


def test_no_secret_key(settings):
    settings.SECRET_KEY = ""
    message = the_one(checks.check_all())
    assert (message.id, message.hint) == ("tenant_q.E006", "Set SECRET_KEY.")


@pytest.mark.seam
def test_a_database_that_does_not_switch_schemas(monkeypatch):
    plain = django_settings.DATABASES["default"] | {"ENGINE": "django.db.backends.postgresql"}
    monkeypatch.setattr(checks, "connections", ConnectionHandler({"default": plain}))
    message = the_one(checks.check_all())
    assert message.id == "tenant_q.E007"
    assert "DATABASES['default'] does not switch schemas" in message.msg
    assert message.hint == f"Set its ENGINE to '{django_settings.DATABASES['default']['ENGINE'].split('.')[0]}" + (
        ".postgresql_backend'."
    )


def test_what_admin_functions_name_in_vain_is_a_warning(settings):
    """No error: a function may be deployed at another cluster of the site only, and tasks of code need none."""
    entries = ["math.pow", "shop.tasks.*", "shop.tasks.ship", "no.such.module", "math.tau", "math.*", "no.such.*"]
    settings.TENANT_Q = {"admin_functions": entries}
    messages = checks.check_all()
    assert [(type(message), message.id) for message in messages] == [(Warning, "tenant_q.W004")] * 4
    names = ("'no.such.module': UnknownFunction", "'math.tau': UnknownFunction", "'math.*': no public function is")
    for message, words in zip(messages, (*names, "'no.such.*': ModuleNotFoundError"), strict=True):
        assert f"TENANT_Q['admin_functions'] names {words}" in message.msg
    assert checks.configuration_problems() == []


def test_tenant_q_behind_django_q():
    apps = [app for app in django_settings.INSTALLED_APPS if app != "tenant_q"]
    with (
        modify_settings(INSTALLED_APPS={"remove": ["tenant_q"]}),
        modify_settings(INSTALLED_APPS={"append": "tenant_q"}),
    ):
        message = the_one(checks.check_all())
        assert [*apps, "tenant_q"] == django_settings.INSTALLED_APPS
    assert (type(message), message.id) == (Warning, "tenant_q.W002")
    assert "before 'django_q'" in message.hint
    assert checks.configuration_problems() == []


def test_a_setting_that_is_no_dict_breaks_no_check(settings, monkeypatch):
    monkeypatch.setenv("Q_CLUSTER_NAME", "long")
    for value in (5, {"ALT_CLUSTERS": 5}):
        settings.Q_CLUSTER = value
        assert [message.id for message in checks.check_all()] == ["tenant_q.E004"]


def test_a_tenant_model_whose_key_can_be_used_again_is_named(monkeypatch):
    monkeypatch.setattr(checks.tenancy, "tenant_table", lambda: ("customers_customer", "schema_name"))
    assert [message.id for message in checks.check_all() if message.id == "tenant_q.W005"] == ["tenant_q.W005"]


@pytest.mark.parametrize("configured", [{"charset": "utf-8"}, "redis://:a#b@h/0", "redis://h/0?charset=x", "h:6379"])
def test_redis_options_that_cannot_be_used(settings, configured):
    settings.Q_CLUSTER = {"redis": configured}
    (message,) = checks.check_all()
    assert (message.id, message.is_serious()) == ("tenant_q.E009", True)
    assert message.msg.startswith("Q_CLUSTER['redis'] cannot be used: ")


SHARED: dict[str, dict[str, Any]] = {
    "redis://localhost:6379/0": {"BACKEND": "django.core.cache.backends.redis.RedisCache"},
    "redis://127.0.0.1/0": {"BACKEND": "django_redis.cache.RedisCache"},
    "redis://localhost": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "OPTIONS": {"db": 0}},
    "redis://other:6379/0,redis://localhost:6379": {"BACKEND": "django.core.cache.backends.redis.RedisCache"},
    "redis://other:6379/0; redis://localhost:6379": {"BACKEND": "django.core.cache.backends.redis.RedisCache"},
    "a list": {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": ["redis://other:6379/0", "redis://localhost:6379/0"],
    },
    "valkey://localhost:6379/0": {"BACKEND": "django_valkey.cache.ValkeyCache"},
}
APART: dict[str, dict[str, Any]] = {
    "redis://localhost:6379/1": {"BACKEND": "django.core.cache.backends.redis.RedisCache"},
    "redis://other:6379/0": {"BACKEND": "django.core.cache.backends.redis.RedisCache"},
    "redis://localhost:6379": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "OPTIONS": {"db": 2}},
    "redis://127.0.0.1:6379": {"BACKEND": "django_redis.cache.RedisCache", "OPTIONS": {"DB": 2}},
    "unix:///tmp/x?db=0": {"BACKEND": "django.core.cache.backends.redis.RedisCache"},
    "nonsense": {"BACKEND": "django.core.cache.backends.redis.RedisCache"},
    "redis://localhost:6379/0 ": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
}


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ({"Q_CLUSTER": {"lease": 5}}, "Q_CLUSTER has an unknown key 'lease': it belongs in TENANT_Q."),
        ({"TENANT_Q": {"workers": 5}}, "TENANT_Q has an unknown key 'workers': it belongs in Q_CLUSTER."),
        (
            {"Q_CLUSTER": {"ALT_CLUSTERS": {"long": {"lease": 5}}}},
            "Q_CLUSTER['ALT_CLUSTERS']['long'] has an unknown key 'lease': it belongs in TENANT_Q.",
        ),
    ],
)
def test_a_key_in_the_wrong_setting_is_sent_to_the_other(settings, setting, hint):
    for name, value in setting.items():
        setattr(settings, name, value)
    assert [message.msg for message in checks.check_all()] == [hint]


def test_a_cache_for_results_that_does_not_exist(settings):
    settings.Q_CLUSTER = {"cache": "result"}
    settings.CACHES = {"results": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}}
    message = the_one(checks.check_all())
    assert message.id == "tenant_q.E009"
    assert message.msg == "Q_CLUSTER['cache'] names 'result', and CACHES has no such alias."
    assert message.hint == "Add it to CACHES, or correct the name: did you mean 'results'?"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InvalidCacheBackendError(), "CACHES has no such alias; did you mean 'queue'?"),
        (NotImplementedError(), "its BACKEND is not one of django-redis."),
    ],
)
def test_an_alias_of_django_redis_that_cannot_be_used(settings, monkeypatch, error, text):
    def refuse(alias: str) -> None:
        raise error

    monkeypatch.setitem(sys.modules, "django_redis", SimpleNamespace(get_redis_connection=refuse))
    settings.Q_CLUSTER = {"django_redis": "queues"}
    settings.CACHES = {"queue": {}, "default": {}}
    assert the_one(checks.check_all()).msg == f"Q_CLUSTER['django_redis'] ('queues') cannot be used: {text}"


@pytest.mark.parametrize("location", [*SHARED, *APART])
def test_a_cache_in_the_queues_database_is_a_warning(settings, location):
    settings.Q_CLUSTER = {"redis": "redis://localhost:6379/0"}
    settings.CACHES = {"own": {"LOCATION": location} | (SHARED | APART)[location]}
    messages = checks.check_all()
    assert [message.id for message in messages] == ["tenant_q.W006"] * (location in SHARED)
    assert all("cache.clear() on CACHES['own'] also empties the queue" in one.msg for one in messages)
    assert checks.configuration_problems() == []


WRONG = [object(), b"x", b"", -1, [5], ["x"], {"a": 5}, {5: {}}, float("nan"), float("-inf"), (5,), [None], 10**400]


@pytest.mark.parametrize(
    ("name", "key"), [("Q_CLUSTER", key) for key in Q_CLUSTER] + [("TENANT_Q", key) for key in TENANT_Q]
)
def test_no_value_is_worth_a_traceback(settings, name, key):
    """What is accepted is read; all else is named in one sentence."""
    before = getattr(settings, name)
    for value in WRONG:
        setattr(settings, name, before | {key: value})
        found = problems()
        assert all("\n" not in sentence and sentence[-1] in ".?" and len(sentence) < 700 for sentence in found)
        if not found:
            conf()
            site_clusters()

"""Declared tasks: which functions can be declared, and which of the options holds."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from types import ModuleType
from typing import Any

import pytest

from tenant_q import Retry, checks, task
from tenant_q.exceptions import ConfigurationError, EnqueueError
from tenant_q.lifecycle.execute import resolve
from tenant_q.package import declarations
from tenant_q.package.build import build
from tests import tasks_declared

HERE = "tests.tasks_declared"


def package(func: Any, *args: Any, **keywords: Any) -> Any:
    return build(func, args, keywords, schema="acme_corp")


def test_the_function_stays_as_it_is():
    assert tasks_declared.plain(1, b=2) == 3
    assert tasks_declared.plain.__name__ == "plain"


@pytest.mark.parametrize("func", [tasks_declared.fail_twice, f"{HERE}.fail_twice"])
def test_a_package_has_the_declared_options(func):
    own = package(func, "key")
    assert (own.task["max_attempts"], own.task["retry_delay"], own.task["retry_jitter"]) == (3, 0, 0)
    assert own.func == f"{HERE}.fail_twice"


def test_a_call_wins_over_the_declaration_and_the_declaration_over_the_settings(settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"timeout": 90, "cached": 30}
    assert package(tasks_declared.fail_twice, "key", q_options={"max_attempts": 9}).task["max_attempts"] == 9
    assert package(tasks_declared.atomic, "key").task["timeout"] == 7
    assert package(tasks_declared.fail_twice, "key").task["cached"] == 30
    assert package(tasks_declared.atomic, "key", timeout=3).task["timeout"] == 3


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(EnqueueError, match="transactional"):
        package(tasks_declared.atomic, "key", cached=True)


@pytest.mark.parametrize("func", [tasks_declared.renamed, f"{HERE}.renamed", "tests.renamed"])
def test_a_name_of_its_own_takes_the_place_of_the_path(func):
    own = package(func, 1)
    assert (own.func, own.stored_func, own.option("max_attempts")) == ("tests.renamed", "tests.renamed", 4)


def test_errors_travel_by_their_paths():
    own = package(tasks_declared.choosy, "key", "other", q_options={"no_retry_on": [ValueError, "shop.Gone"]})
    assert own.task["retry_on"] == (f"{HERE}.Flaky",)
    assert own.task["no_retry_on"] == ("builtins.ValueError", "shop.Gone")


def test_a_package_is_completed_once_its_function_is_known():
    sent = package("tests.tasks.add", 1)
    assert declarations.complete(sent) is sent
    unknown = type(sent)({**sent.task, "func": f"{HERE}.fail_twice", "max_attempts": 1})
    own = declarations.complete(unknown)
    assert (own.task["max_attempts"], own.task["retry_jitter"]) == (1, 0), "the call wins"


def test_a_function_that_another_decorator_wraps_keeps_its_declaration():
    assert package(tasks_declared.wrapped, "a").task["max_attempts"] == 6
    assert resolve(f"{HERE}.wrapped")("a") == "A", "what stands at the path runs"


def test_what_a_test_puts_in_the_place_of_a_function_runs(monkeypatch):
    monkeypatch.setattr(tasks_declared, "plain", lambda a: "patched")
    assert resolve(f"{HERE}.plain")(1) == "patched"


# Discovery


@pytest.fixture
def app(tmp_path, settings, monkeypatch):
    """An installed app whose module `tasks` is written by the test."""
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "declaring").mkdir()
    (tmp_path / "declaring/__init__.py").touch()

    def install(tasks: str) -> None:
        (tmp_path / "declaring/tasks.py").write_text(tasks)
        settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "declaring"]

    yield install
    for name in [name for name in sys.modules if name.partition(".")[0] == "declaring"]:
        del sys.modules[name]
    for name in [name for name in declarations._registry.by_name if name.startswith("declaring.")]:
        del declarations._registry.by_name[name]


def test_the_tasks_of_an_app_are_declared_when_a_path_is_looked_up(app):
    app("from tenant_q import task\n@task(max_attempts=7)\ndef send(): ...")
    assert "declaring.tasks" not in sys.modules
    assert package("declaring.tasks.send").task["max_attempts"] == 7
    assert "declaring.tasks.send" in [declaration.name for declaration in declarations.all_declared()]


def test_a_broken_module_of_tasks_fails_no_other_call_and_is_checked(app, caplog):
    app("raise RuntimeError('broken')")
    assert package("tests.tasks.add", 1).func == "tests.tasks.add"
    assert "Could not import declaring.tasks" in caplog.text
    (message,) = [one for one in checks.check_all() if one.id == "tenant_q.W008"]
    assert "declaring.tasks cannot be imported: RuntimeError: broken" in message.msg


def test_an_app_that_is_a_single_module_declares_nothing(tmp_path, settings, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "solo.py").write_text(
        f"from django.apps import AppConfig\nclass Solo(AppConfig):\n    name, path = 'solo', {str(tmp_path)!r}"
    )
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "solo.Solo"]
    try:
        assert package("tests.tasks.add", 1).func == "tests.tasks.add"
    finally:
        sys.modules.pop("solo", None)


def test_a_module_of_tasks_may_enqueue_while_it_is_imported(app):
    app("from tenant_q.package import declarations\nfound = declarations.find('declaring.tasks.later')")
    assert package("declaring.tasks.send").func == "declaring.tasks.send"
    assert sys.modules["declaring.tasks"].found is None


# Errors at the declaration


def nested() -> Any:
    def inside() -> None:
        return None

    return inside


class Methods:
    def method(self) -> None:
        return None


@pytest.mark.parametrize(
    ("func", "shown"),
    [
        (nested(), "nested.<locals>.inside"),
        (lambda: None, "<lambda>"),
        (Methods.method, "Methods.method"),
        (Methods, "Methods"),
        (Methods().method, "Methods.method"),
        ("tests.tasks.add", "tests.tasks.add"),
    ],
)
def test_what_a_worker_would_not_find_is_refused(func, shown):
    with pytest.raises(ConfigurationError, match=f"@task was used on .*{shown}"):
        task(func)


def test_a_name_cannot_be_declared_twice():
    module = ModuleType("tests.elsewhere")
    exec("def other(): ...\ndef renamed(): ...", module.__dict__)
    for func in (module.other, module.renamed):
        func.__module__ = module.__name__
    with pytest.raises(ConfigurationError, match=r"'tests\.renamed' is declared twice, by .*renamed and by .*other"):
        task(name="tests.renamed")(module.other)
    with pytest.raises(ConfigurationError, match="declared twice"):
        task(name=f"{HERE}.plain")(module.renamed)


def test_a_module_may_be_loaded_again():
    first = declarations.find(f"{HERE}.plain")
    again = task(tasks_declared.plain)
    assert declarations.find(again) is not first


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_atempts": 3}, "unknown option 'max_atempts': did you mean 'max_attempts'"),
        ({"delay": 3}, "unknown option 'delay'"),
        ({"max_attempts": "3"}, "The option 'max_attempts' of @task is '3'"),
        ({"retry_on": (3,)}, "The option 'retry_on' of @task is"),
        ({"retry_jitter": 2}, "a share from 0 to 1"),
        ({"priority": 200}, "The option 'priority' of @task is 200 .*a whole number from -100 to 100"),
        ({"rate": "often"}, "The option 'rate' of @task is 'often' .*a number of starts per second"),
        ({"transactional": True, "cached": True}, "The option 'transactional' of @task needs a result"),
        ({"name": "not a name"}, "has name='not a name'"),
    ],
)
def test_a_wrong_option_is_refused(options, text):
    with pytest.raises(ConfigurationError, match=text):
        task(**options)(tasks_declared.plain)


@pytest.mark.parametrize("options", [{"max_atempts": 3}, {"timeout": -3}])
def test_a_wrong_option_of_a_call_is_refused_where_it_is_given(options):
    with pytest.raises(EnqueueError):
        tasks_declared.plain.using(**options)


def test_retry_takes_a_timedelta_and_names_its_cause():
    error = Retry(delay=timedelta(minutes=1), cause=ValueError("why"))
    assert (error.delay, str(error)) == (60, "why")


def test_a_module_of_tasks_needs_no_apps_and_no_settings():
    code = f"import {HERE}, sys; assert not [m for m in sys.modules if m.endswith('.models')], sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": ""} | _paths())


def _paths() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(path or "." for path in sys.path)}

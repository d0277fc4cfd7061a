"""The reference is complete, and says of each key, option, command, error and signal what the code says."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import re
import runpy
from typing import Any

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import DjangoHelpFormatter
from django.dispatch import Signal

from tenant_q import exceptions
from tenant_q.conf import conf
from tenant_q.conf.table import ATTRIBUTES, OTHERS, Q_CLUSTER, TENANT_Q
from tenant_q.custom import AsyncTask, Chain, Iter
from tenant_q.package.options import KEYWORD_OPTIONS, TENANT_OPTIONS
from tenant_q.utils import QUtilities
from tests.documents import DOCS, ROOT, names, rows, section

REFERENCE = DOCS / "reference"
COMMANDS = sorted(path.stem for path in (ROOT / "tenant_q/management/commands").glob("[a-z]*.py"))


# Settings


def test_the_tables_of_settings_are_those_of_the_code():
    """If this fails, run `python scripts/write_settings.py`."""
    writer = runpy.run_path(str(ROOT / "scripts/write_settings.py"))
    page = (REFERENCE / "settings.md").read_text()
    assert page == writer["written"](page)


def test_every_setting_is_described():
    for setting in (*ATTRIBUTES.values(), *OTHERS):
        assert setting.help or setting.no_effect, setting.key
        assert not setting.help.endswith("."), setting.key
        numbers = {int, float} & set(setting.types)
        assert setting.unit or setting.no_effect or not numbers or setting.key == "retry", setting.key


def test_defaults_are_those_of_the_code(settings):
    settings.Q_CLUSTER, settings.TENANT_Q = {}, {}
    read, compared = conf(), 0
    for name, setting in ATTRIBUTES.items():
        if setting.default.startswith("`") and name not in ("cluster", "time_zone"):
            assert getattr(read, name) == ast.literal_eval(setting.default.strip("`")), name
            compared += 1
    assert compared >= len(TENANT_Q) + 12
    assert (read.cluster, read.site) == ("default", "default")


def test_a_key_is_described_once():
    assert len(Q_CLUSTER) + len(TENANT_Q) == len(ATTRIBUTES) + len(OTHERS)


def test_every_option_of_a_task_is_there():
    whose = {row[0].strip("`"): row[1] for row in rows(section(REFERENCE / "tasks.md", "Options of a task"))}
    assert whose == dict.fromkeys((*KEYWORD_OPTIONS, "task_name"), "Django-Q2") | dict.fromkeys(TENANT_OPTIONS, "ours")


# Commands


def _parser(command: str) -> argparse.ArgumentParser:
    app = get_commands()[command]
    return (app if not isinstance(app, str) else load_command_class(app, command)).create_parser("manage.py", command)


def _options(parser: argparse.ArgumentParser, command: str) -> set[str]:
    """The long options that are the command's own, and the words its positional arguments may be."""
    actions = [one for one in parser._actions if not _is_djangos(one) and one.help != argparse.SUPPRESS]
    words = {
        f"{command} {choice}" for action in actions if not action.option_strings for choice in action.choices or ()
    }
    return words | {option for action in actions for option in action.option_strings if option.startswith("--")}


def _is_djangos(action: argparse.Action) -> bool:
    return action.dest in ("help", *(dest.strip("-").replace("-", "_") for dest in DjangoHelpFormatter.show_last))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_there_with_its_options(command):
    text = section(REFERENCE / "commands.md", command)
    listed = set(re.findall(r"`(--[a-z-]+)", text)) - {"--settings", "--verbosity"}
    if command == "mstenant":  # its actions have sections of their own
        listed |= set(re.findall(r"^### (mstenant \w+)$", (REFERENCE / "commands.md").read_text(), re.MULTILINE))
    else:
        listed |= set(re.findall(rf"`({command} [a-z]+)", text))
    assert listed == _options(_parser(command), command)


ACTIONS = next(one.choices for one in _parser("mstenant")._actions if isinstance(one.choices, dict))


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_of_mstenant_is_there_with_its_options(action):
    text = section(REFERENCE / "commands.md", f"mstenant {action}")
    assert f"`mstenant {action}" in text.replace("\n", " ")
    own = _options(ACTIONS[action], "") - {"--json", "--schema"}
    assert set(re.findall(r"^\| `(--[a-z-]+)", text, re.MULTILINE)) == own


def test_no_command_is_there_that_is_not():
    text = (REFERENCE / "commands.md").read_text()
    assert sorted(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == COMMANDS


# Errors


def _classes(family: type[Exception]) -> set[str]:
    return {
        name for name, value in vars(exceptions).items() if inspect.isclass(value) and issubclass(value, family)
    } - {family.__name__}


def test_every_error_is_there():
    page = REFERENCE / "errors.md"
    met = {row[0].strip("`") for row in rows(section(page, "What a call may raise"))}
    causes = {row[0].strip("`") for row in rows(section(page, "Causes of failed rows"))}
    assert causes == _classes(exceptions.TaskDeath)
    assert met == _classes(exceptions.TenantQError) - _classes(exceptions.TaskDeath) - {"TaskDeath"}


def test_every_check_is_there():
    listed = {row[0].strip("`") for row in rows(section(REFERENCE / "errors.md", "What `manage.py check` reports"))}
    names = ("checks.py", "conf/isolation.py", "django_tasks/__init__.py", "workflows/checks.py")
    sources = [ROOT / "tenant_q" / name for name in names]
    found = re.findall(r"\b[EIW]\d{3}\b", "".join(source.read_text() for source in sources))
    assert listed == {f"tenant_q.{number}" for number in found}


# Signals and names


def test_every_signal_of_tenant_q_is_there():
    said = {row[0].strip("`") for row in rows(section(REFERENCE / "signals.md", "Signals of tenant_q"))}
    module = importlib.import_module("tenant_q.signals")
    assert said == {name for name, value in vars(module).items() if isinstance(value, Signal)}


def test_every_signal_is_there_with_its_arguments():
    module = importlib.import_module("django_q.signals")
    source = inspect.getsource(module)
    said = {row[0].strip("`"): names(row[2]) for row in rows(section(REFERENCE / "signals.md", "Signals of Django-Q2"))}
    assert set(said) == {
        name for name, value in vars(module).items() if isinstance(value, Signal) and name != "post_save"
    }
    for name, arguments in said.items():
        found = re.search(rf"# args: (.*)\n{name} = Signal\(\)", source)
        assert found
        assert arguments == set(found[1].split(", ")), name


# Logging and diagrams


def test_the_loggers_are_those_of_the_page():
    """Their names are public: what filters and alerts of a project name must stay."""
    said = {row[0].strip("`") for row in rows(section(REFERENCE / "logging.md", "Loggers"))}
    found = set()
    for path in (ROOT / "tenant_q").rglob("*.py"):
        found |= set(re.findall(r'(?:get_logger|getLogger)\("(tenant_q[\w.]*)"\)', path.read_text()))
    assert said == found
    watched = set(
        re.findall(r"^\| (`.*?`(?:, `.*?`)*) \| [A-Z]+", section(DOCS / "how-to/watch.md", "Logs"), re.MULTILINE)
    )
    assert {name.strip("`") for cell in watched for name in cell.split(", ")} <= said


def test_the_events_are_those_of_the_page():
    """If this fails, run `python scripts/write_events.py`. Events are public, as the names of loggers are."""
    writer = runpy.run_path(str(ROOT / "scripts/write_events.py"))
    calls = list(writer["calls"]())
    assert len(calls) > 90
    assert [call.place for call in calls if not re.fullmatch(r"[a-z_]+\.[a-z_]+", call.event)] == []
    page = (REFERENCE / "logging.md").read_text()
    assert writer["written"](page) == page


def test_the_operations_of_the_diagram_and_the_page_are_those_of_the_broker():
    lua = {path.stem for path in (ROOT / "tenant_q/brokers/lua").glob("*.lua")}
    drawn = set(re.findall(r'class="op">(\w+)<', (DOCS / "assets/package-states.svg").read_text()))
    listed = set()
    for row in rows(section(DOCS / "explanation/architecture.md", "The states of a package")):
        listed |= names(row[0])
    assert drawn == listed
    assert drawn <= lua


def test_decisions_have_one_form():
    """A title with its number, status and date, and the same sections; the index has them all."""
    index = {row[0]: row[1:] for row in rows((DOCS / "adr/index.md").read_text())}
    pages = sorted((DOCS / "adr").glob("0*.md"))
    assert len(index) == len(pages)
    for page in pages:
        text, number = page.read_text(), str(int(page.name[:4]))
        head = re.match(r"# (\d+)\. (.+)\n\n- Status: ([a-z]+).*\n- Date: (\d{4}-\d\d-\d\d)\n\n## Context\n", text)
        assert head and head[1] == number, page.name
        assert index[number] == [f"[{head[2]}]({page.name})", head[3], head[4]], page.name
        sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert [name for name in sections if name != "Why not"] == ["Context", "Decision", "Consequences"], page.name


def _members(one: type) -> dict[str, Any]:
    return {name: getattr(one, name) for name in vars(one) if not name.startswith("_")}


@pytest.mark.parametrize("one", [QUtilities, AsyncTask, Chain, Iter])
def test_every_public_name_has_a_text(one):
    """A page is made of the docstrings; what has none is not on it."""
    assert f"::: {one.__module__}.{one.__name__}\n" in (REFERENCE / "api.md").read_text()
    for name, member in {"": one, **_members(one)}.items():
        assert (member.__doc__ or "").strip(), f"{one.__name__}.{name}"


def test_every_name_on_the_page_is_there():
    for path in re.findall(r"^::: (\S+)$", (REFERENCE / "api.md").read_text(), re.MULTILINE):
        module, _, name = path.rpartition(".")
        assert hasattr(importlib.import_module(module), name), path

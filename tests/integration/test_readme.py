"""The README is right: its examples run and give what they say, its tables and commands are those of the code.

A block of Python whose first line is `# settings.py` is checked as settings; the others are run where `acme_corp` is
current and a cluster is running. `tests.documents` describes how.
"""

from __future__ import annotations

import configparser
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import load_command_class

from tenant_q.custom import AsyncTask, Chain, Iter
from tenant_q.management import commands, shown
from tenant_q.management.commands import msschedules
from tenant_q.management.commands.mscluster import Command
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.conftest import MANAGE
from tests.documents import ROOT, Block, attributes, blocks, names, run, section, write_files

README = ROOT / "README.md"
TEXT = README.read_text()
METHODS = {
    "add_async_task", "create_schedule", "get_result", "get_result_group", "fetch_task", "fetch_task_group",
    "get_group_count", "delete_task_group", "delete_task_from_cache", "get_queue_size", "add_async_tasks_from_iter",
    "create_async_tasks_chain", "get_status", "cancel", "set_progress", "get_progress",
}  # fmt: skip


PYTHON = [block for block in blocks(README) if block.language == "python"]
EXAMPLES = [block for block in PYTHON if block.file is None]
CALLED = attributes(PYTHON)  # also what the files that it shows call


# The examples


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that the README shows, on the path of this process."""
    write_files(PYTHON, tmp_path / "written")
    monkeypatch.syspath_prepend(tmp_path / "written")
    return tmp_path / "written"


def test_every_example_runs_and_gives_what_it_says(tenants, mscluster, settings, monkeypatch, written):
    from django_q.conf import Conf

    # Plain `async_task` reads the cluster's name where Django-Q2 has put it at import.
    monkeypatch.setattr(Conf, "CLUSTER_NAME", settings.Q_CLUSTER["name"])
    cluster = mscluster("--workers", "2", PYTHONPATH=os.pathsep.join([str(written), os.environ["PYTHONPATH"]]))
    namespace: dict[str, Any] = {"__name__": "readme"}
    with in_schema("acme_corp"):
        for block in EXAMPLES:
            run(block, namespace)
        assert QUtilities.get_result_group("May", wait=5000), "what an example starts without looking"
    assert cluster.stop() == 0
    assert "rent of acme_corp: acme_corp: invoice 18 over 120" in cluster.log, "the hook was called"
    (shown,) = (block.text for block in blocks(README) if "mscluster\n  cluster" in block.text)
    heads = [re.findall(r"^  (\w+) +\S", text, re.MULTILINE) for text in (shown, cluster.log)]
    assert heads[0] == heads[1], "the block at the start of a cluster"
    assert shown.splitlines()[1] == cluster.log.splitlines()[0]


@pytest.mark.parametrize(
    "columns", [shown._CLUSTER, shown._PROCESS, shown._TENANT, msschedules._COLUMNS], ids=lambda columns: columns[1]
)
def test_the_tables_of_commands_have_the_columns_that_are_shown(columns):
    lines = [line.split() for block in blocks(README) for line in block.text.splitlines()]
    assert " ".join(columns).split() in lines


def test_the_commands_that_are_shown_are_there():
    called = re.findall(r"python manage\.py (\w+)((?: +(?:--)?[\w-]+)*)", TEXT)
    ours = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    assert len(called) > 10
    for name, words in called:
        parser = load_command_class("tenant_q", name).create_parser("manage.py", name) if name in ours else None
        known = parser._option_string_actions if parser else {}
        for option in re.findall(r"--[\w-]+", words) if parser else ():
            assert option in known or _takes(parser, option), f"{name} {option}"


def _takes(parser: Any, option: str) -> bool:
    """Whether a word of the command, as `mstenant limit`, takes the option."""
    groups = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    return any(option in one._option_string_actions for group in groups for one in group.values())


def test_an_example_that_is_wrong_is_found():
    with pytest.raises(AssertionError, match="it is 3"):
        run(Block("python", 1, "1 + 2  # → 4\n"), {})
    with pytest.raises(AssertionError, match="behind an expression"):
        run(Block("python", 1, "x = 1 + 2  # → 3\n"), {})


def test_every_public_name_has_an_example():
    public = {name for name in vars(QUtilities) if not name.startswith("_")}
    assert public == METHODS
    assert public <= CALLED
    for one in (Chain, Iter, AsyncTask):
        assert f"{one.__name__}(" in "".join(block.text for block in EXAMPLES)
        methods = {name for name, _ in inspect.getmembers(one, inspect.isfunction) if not name.startswith("_")}
        assert methods <= CALLED, one
    for word in ("schema_name=", "in_schema(", " async_task(", "q_options="):
        assert any(word in block.text for block in EXAMPLES), word


def test_every_method_takes_schema_name():
    for name in METHODS - {"set_progress"}:  # only a task calls it
        parameter = inspect.signature(getattr(QUtilities, name)).parameters["schema_name"]
        assert parameter.default is None, name


# The settings


@pytest.mark.parametrize("tenancy", ["tenant_schemas", "django_tenants"])
def test_the_settings_pass_every_check(tenants, written, tenancy):
    """The block as it stands, over those of the test project that it does not name, with both tenancy packages."""
    (block,) = (block for block in PYTHON if block.file == "settings.py")
    text = block.text.replace('"tenant_schemas"', f'"{tenancy}"')
    assert text.count(tenancy) == 1
    (written / "readme_settings.py").write_text(
        f"from config.settings import *\n\n{text}\n"
        "assert INSTALLED_APPS.index('tenant_q') < INSTALLED_APPS.index('django_q')\n"
        "ROOT_URLCONF = 'config.urls_public'\n"
    )
    checked = subprocess.run(
        [sys.executable, str(MANAGE), "check", "--fail-level", "WARNING"],
        env=os.environ
        | {
            "TENANCY": tenancy,
            "DJANGO_SETTINGS_MODULE": "readme_settings",
            "PYTHONPATH": os.pathsep.join([str(written), os.environ["PYTHONPATH"]]),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr
    assert "no issues" in checked.stdout


# The commands


def test_every_command_is_there():
    makefile = (ROOT / "Makefile").read_text()
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text()
        targets = set(re.findall(r"(?:^|`)make ([a-z][\w-]*)", text, re.MULTILINE))
        assert targets, document
        for target in targets:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{document} has `make {target}`"
        for variable in set(re.findall(r"\b(\w+)=(?=--|python|\")", text)) & {"PYTHON", "DEMO_ARGS", "TEST_ARGS"}:
            assert re.search(rf"^{variable} \?=", makefile, re.MULTILINE), variable


def test_every_management_command_is_there():
    commands = {path.stem for path in (ROOT / "tenant_q/management/commands").glob("[a-z]*.py")}
    assert commands <= set(re.findall(r"(?:`|manage\.py )(ms\w+|q\w+)", TEXT))


def test_every_option_of_mscluster_is_there():
    parser = Command().create_parser("manage.py", "mscluster")
    common = {"--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback", "--skip-checks"}
    common |= {"--no-color", "--force-color"}
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    for option in options - common:
        assert option in TEXT, option
    for option in set(re.findall(r"`(--[a-z-]+)", section(README, "Settings for your project"))) - {
        "--schema",
        "--all",
    }:
        assert option in options, option


def test_every_extra_is_there():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    assert set(parser["options.extras_require"]) <= names(section(README, "Settings for your project"))


def test_every_module_has_its_place():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    modules = {module.name for module in pkgutil.iter_modules([str(ROOT / "tenant_q")])} - {"migrations"}
    assert modules <= names(text)


@pytest.mark.parametrize("document", ["README.md", "SECURITY.md"])
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / document).read_text()):
        assert (ROOT / target).exists(), target


def test_every_attacker_is_in_the_security_page():
    text = (ROOT / "SECURITY.md").read_text()
    for suite in (ROOT / "tests/security").glob("test_*.py"):
        assert f"`tests/security/{suite.name}`" in text

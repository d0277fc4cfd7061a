"""The README, the page about installing, and what they name: settings pass the checks, commands and links are there.

The examples of the README are run with those of `docs`, by `test_docs.py`.
"""

from __future__ import annotations

import configparser
import inspect
import os
import pkgutil
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tenant_q.custom import AsyncTask, Chain, Iter
from tenant_q.utils import QUtilities
from tests.conftest import MANAGE
from tests.documents import DOCS, ROOT, Block, attributes, blocks, names, pages, run, section

README = ROOT / "README.md"
INSTALL = DOCS / "how-to/install.md"
METHODS = {
    "start_workflow", "get_workflow", "astart_workflow", "aget_workflow",
    "add_async_task", "create_schedule", "get_result", "get_result_group", "fetch_task", "fetch_task_group",
    "get_group_count", "delete_task_group", "delete_task_from_cache", "get_queue_size", "add_async_tasks_from_iter",
    "create_async_tasks_chain", "get_status", "cancel", "set_progress", "get_progress", "current_task",
    "ensure_schedule", "aadd_async_task", "aget_result", "aget_status", "acancel",
    "cancel_group", "acancel_group",
}  # fmt: skip
PYTHON = [block for page in [README, *pages()] for block in blocks(page) if block.language == "python"]
CALLED = attributes([block for block in PYTHON if not block.why_not])


# The examples


def test_the_readme_is_a_landing_page():
    assert len(README.read_text().splitlines()) <= 200


def test_an_example_that_is_wrong_is_found():
    with pytest.raises(AssertionError, match="it is 3"):
        run(Block("python", 1, "1 + 2  # → 4\n"), {})
    with pytest.raises(AssertionError, match="behind an expression"):
        run(Block("python", 1, "x = 1 + 2  # → 3\n"), {})


def test_every_public_name_has_an_example():
    public = {name for name in dir(QUtilities) if not name.startswith("_")}
    assert public == METHODS
    assert public <= CALLED
    examples = [block for block in PYTHON if block.file is None and not block.why_not]
    for one in (Chain, Iter, AsyncTask):
        assert f"{one.__name__}(" in "".join(block.text for block in examples)
        methods = {name for name, _ in inspect.getmembers(one, inspect.isfunction) if not name.startswith("_")}
        assert methods <= CALLED, one
    for word in ("schema_name=", "in_schema(", " async_task(", "q_options="):
        assert any(word in block.text for block in examples), word


def test_every_method_takes_schema_name():
    for name in METHODS - {"set_progress", "current_task"}:  # only a task calls it
        parameter = inspect.signature(getattr(QUtilities, name)).parameters["schema_name"]
        assert parameter.default is None, name


# The settings


def _check(text: str, folder: Path, tenancy: str) -> None:
    """Run the checks with settings that are laid over those of the test project."""
    (folder / "billing").mkdir()
    (folder / "billing/__init__.py").touch()
    (folder / "page_settings.py").write_text(
        f"from config.settings import *\n\n{text}\n"
        "assert INSTALLED_APPS.index('tenant_q') < INSTALLED_APPS.index('django_q')\n"
        "ROOT_URLCONF = 'config.urls_public'\n"
    )
    checked = subprocess.run(
        [sys.executable, str(MANAGE), "check", "--fail-level", "WARNING"],
        env=os.environ
        | {
            "TENANCY": tenancy,
            "DJANGO_SETTINGS_MODULE": "page_settings",
            "PYTHONPATH": os.pathsep.join([str(folder), os.environ["PYTHONPATH"]]),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, checked.stderr
    assert "no issues" in checked.stdout


def _settings_of(page: Path) -> str:
    (block,) = (block for block in blocks(page) if block.file == "settings.py")
    return block.text


@pytest.mark.parametrize("tenancy", ["tenant_schemas", "django_tenants"])
def test_the_settings_of_install_pass_every_check(tenants, tmp_path, tenancy):
    text = _settings_of(INSTALL).replace('"tenant_schemas"', f'"{tenancy}"')
    assert text.count(tenancy) == 1
    _check(text, tmp_path, tenancy)


@pytest.mark.parametrize("tenancy", ["tenant_schemas", "django_tenants"])
def test_the_settings_of_the_readme_pass_every_check(tenants, tmp_path, tenancy):
    """They add to the settings of a project that does not use tenant_q yet."""
    without = """\
SHARED_APPS = [app for app in SHARED_APPS if app != "tenant_q"]
TENANT_APPS = [app for app in TENANT_APPS if app != "django_q"]
"""
    _check(without + _settings_of(README), tmp_path, tenancy)


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


def test_every_extra_is_there():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    assert set(parser["options.extras_require"]) <= names(section(INSTALL, "The package"))


def test_every_module_has_its_place():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    modules = {module.name for module in pkgutil.iter_modules([str(ROOT / "tenant_q")])} - {"migrations"}
    assert modules <= names(text)


@pytest.mark.parametrize("document", ["README.md", "SECURITY.md"])
def test_every_link_leads_somewhere(document):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", (ROOT / document).read_text()):
        assert (ROOT / target).exists(), target


def test_the_links_are_absolute_on_a_package_index():
    absolute = runpy.run_path(str(ROOT / "scripts/absolute_links.py"))["absolute"]
    address = "https://code.example/tenant_q/blob/v1"
    text = absolute(README.read_text(), address)
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert all(target.startswith((address, "https://", "#")) for target in targets)
    assert f"({address}/docs/assets/demo.svg?raw=true)" in text
    assert f"({address}/docs/how-to/servers.md#redis)" in text


def test_every_attacker_is_in_the_security_page():
    text = (ROOT / "SECURITY.md").read_text()
    for suite in (ROOT / "tests/security").glob("test_*.py"):
        assert f"`tests/security/{suite.name}`" in text

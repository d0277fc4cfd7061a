"""The README is right: its examples run and give what they say, its tables and commands are those of the code.

A block of Python whose first line is `# settings.py` is checked as settings; one whose first line is another path is
that file; all others are run, in their order and in one namespace, where `acme_corp` is current and a cluster is
running. `expression  # → value` is compared.
"""

from __future__ import annotations

import ast
import configparser
import inspect
import os
import pkgutil
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tenant_q.conf import Q_CLUSTER_KEYS, TENANT_Q_KEYS, WITHOUT_MEANING, conf
from tenant_q.custom import AsyncTask, Chain, Iter
from tenant_q.management.commands.mscluster import Command
from tenant_q.options import KEYWORD_OPTIONS, TENANT_OPTIONS
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.conftest import MANAGE

ROOT = MANAGE.parent.parent
README = (ROOT / "README.md").read_text()
ARROW = "# → "
METHODS = {
    "add_async_task", "create_schedule", "get_result", "get_result_group", "fetch_task", "fetch_task_group",
    "get_group_count", "delete_task_group", "delete_task_from_cache", "get_queue_size", "add_async_tasks_from_iter",
    "create_async_tasks_chain", "get_status", "cancel", "set_progress", "get_progress",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is the README's line of its first line."""

    language: str
    line: int
    text: str

    @property
    def file(self) -> str | None:
        """The file that the block is, if it says so."""
        first = re.match(r"# (\S+\.py)\n", self.text)
        return first[1] if first else None


def blocks() -> list[Block]:
    fences = re.finditer(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    return [Block(fence[1], README[: fence.start(2)].count("\n") + 1, fence[2]) for fence in fences]


PYTHON = [block for block in blocks() if block.language == "python"]
EXAMPLES = [block for block in PYTHON if block.file is None]
CALLED = {node.attr for block in PYTHON for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Attribute)}


def section(title: str) -> str:
    """The text under a heading, up to the next of any level, without its blocks of code."""
    text = re.sub(r"^```.*?^```$", "", README, flags=re.MULTILINE | re.DOTALL)
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no heading {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {place - 1 for place, line in enumerate(lines) if set(line) <= set("|-")}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for place, line in enumerate(lines)
        if place not in heads and place - 1 not in heads
    ]


def names(text: str) -> set[str]:
    return set(re.findall(r"`([^`\s]+)`", text))


# The examples


class _Compare(ast.NodeTransformer):
    """Turn `expression  # → value` into a comparison."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.compared = 0

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        _, arrow, wanted = self.lines[(node.end_lineno or 0) - 1].partition(ARROW)
        if arrow:
            self.compared += 1
            call = ast.parse("_compare(None, None)", mode="eval").body
            assert isinstance(call, ast.Call)
            call.args = [node.value, ast.Constant(wanted)]
            node.value = call
        return node


def _compare(found: Any, wanted: str) -> None:
    assert found == ast.literal_eval(wanted), f"it is {found!r}, and the README says {wanted}"


def run(block: Block, namespace: dict[str, Any]) -> None:
    """Run an example, patiently. A traceback names the README's line."""
    tree = ast.parse(block.text.replace("wait=5000", "wait=30000"))
    compare = _Compare(block.text.splitlines())
    tree = ast.fix_missing_locations(compare.visit(tree))
    assert compare.compared == block.text.count("→"), f"line {block.line}: {ARROW!r} stands only behind an expression"
    ast.increment_lineno(tree, block.line - 1)
    exec(compile(tree, str(ROOT / "README.md"), "exec"), namespace | {"_compare": _compare}, namespace)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the files that the README shows, on the path of this process."""
    for block in PYTHON:
        if block.file and block.file != "settings.py":
            path = tmp_path / "written" / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "__init__.py").touch()
            path.write_text(block.text)
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
    (shown,) = (block.text for block in blocks() if "mscluster\n  cluster" in block.text)
    heads = [re.findall(r"^  (\w+) +\S", text, re.MULTILINE) for text in (shown, cluster.log)]
    assert heads[0] == heads[1], "the block at the start of a cluster"
    assert shown.splitlines()[1] == cluster.log.splitlines()[0]


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
    for name in METHODS - {"set_progress"}:  # a task tells of itself
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


def _assert_defaults(table: list[list[str]], defaults: Any) -> int:
    """Compare the literals in the second column with the attributes of that name. Returns how many there were."""
    compared = 0
    for keys, default, *_ in table:
        (key, *others) = re.findall(r"`(\w+)`", keys)
        if others or not hasattr(defaults, key) or not default.startswith("`"):
            continue
        try:
            wanted = ast.literal_eval(default.strip("`"))
        except ValueError:  # the name of a setting of Django's
            continue
        assert getattr(defaults, key) == wanted, key
        compared += 1
    return compared


def test_every_key_of_tenant_q_is_there_with_its_default(settings):
    table = rows(section("`TENANT_Q`"))
    assert {keys.strip("`") for keys, *_ in table} == set(TENANT_Q_KEYS)
    settings.TENANT_Q = {}
    assert _assert_defaults(table, conf()) == len(table)


def test_every_key_of_q_cluster_is_there(settings):
    text = section("`Q_CLUSTER`")
    table = rows(text)
    served = {key for row in table for key in names(" ".join(row))} & set(Q_CLUSTER_KEYS)
    pointless = names(text.rpartition("|")[2]) & set(Q_CLUSTER_KEYS)
    assert set(WITHOUT_MEANING) <= pointless
    assert served & pointless == set()
    assert served | pointless == set(Q_CLUSTER_KEYS)
    settings.Q_CLUSTER = {}
    found = conf()
    assert _assert_defaults(table, found) >= 10
    assert (found.cluster, found.site) == ("default", "default")


def test_every_option_of_a_task_is_there():
    table = rows(section("Tasks"))
    listed = {option for options, *_ in table for option in re.findall(r"`(\w+)`", options)} - {"TENANT_Q"}
    assert listed == {*KEYWORD_OPTIONS, *TENANT_OPTIONS, "task_name"}


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
    assert commands <= set(re.findall(r"`(?:python manage.py )?(\w+)`", README))


def test_every_option_of_mscluster_is_there():
    parser = Command().create_parser("manage.py", "mscluster")
    common = {"--help", "--version", "--verbosity", "--settings", "--pythonpath", "--traceback", "--skip-checks"}
    common |= {"--no-color", "--force-color"}
    options = {option for action in parser._actions for option in action.option_strings if option.startswith("--")}
    for option in options - common:
        assert option in README, option
    for option in set(re.findall(r"`(--[a-z-]+)", section("Settings for your project"))) - {"--schema", "--all"}:
        assert option in options, option


def test_every_extra_is_there():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    assert set(parser["options.extras_require"]) <= names(section("Settings for your project"))


def test_every_module_has_its_place():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    modules = {module.name for module in pkgutil.iter_modules([str(ROOT / "tenant_q")])} - {"migrations"}
    assert modules <= names(text)


def test_every_link_leads_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target

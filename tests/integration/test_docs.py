"""The examples of `docs` and of the README are right: they run and give what they say.

`tests.documents` describes how blocks are written. All pages share one cluster, and the files that they show are in
one folder; each page has a namespace of its own. Blocks of `sh` are commands of `manage.py`. A block of `console`
shows what they answer. The tutorials have a test of their own, and so have the files that pages include.
"""

from __future__ import annotations

import os
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command, load_command_class

from tenant_q import tenancy
from tenant_q.management import commands as commands_package
from tenant_q.management import site_tables
from tenant_q.management.commands import msfailures, msschedules
from tenant_q.models import TenantConfiguration
from tenant_q.tenancy import in_schema
from tests.documents import DOCS, ROOT, Block, blocks, pages, run, write_files

README = ROOT / "README.md"
PAGES = [README, *(page for page in pages() if page.parent.name != "tutorials")]
BLOCKS = [block for page in PAGES for block in blocks(page)]
MANAGE = "python manage.py "
# Written by `make bench`.
FIGURES = re.search(
    r"<!-- figures -->.*<!-- end of figures -->", (DOCS / "explanation/performance.md").read_text(), re.S
)


def commands(block: Block) -> list[list[str]]:
    """The commands of a block, in words."""
    return [shlex.split(line, comments=True) for line in block.text.splitlines() if line.strip()]


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language and not block.why_not]


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    for block in blocks(page):
        is_included = block.text.startswith("--8<-- ")
        is_figures = FIGURES is not None and block.text in FIGURES[0]
        assert block.language in ("python", "sh", "console") or is_included or is_figures or block.why_not, block.place
    assert page.read_text().count("```") == 2 * len(blocks(page)), f"{page}: a fence that is not understood"


@pytest.fixture
def nobody_configured() -> Iterator[None]:
    """Delete the configurations that the examples make, as other tests expect none."""
    yield
    with tenancy.in_public():
        TenantConfiguration.objects.all().delete()
    tenancy.forget_tenants()


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "written"
    write_files(of("python"), folder)
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.mark.usefixtures("nobody_configured")
def test_the_examples_run_and_give_what_they_say(other_cluster, mscluster, settings, monkeypatch, written):
    from django_q.conf import Conf

    # Plain `async_task` reads the cluster's name where Django-Q2 has put it at import.
    monkeypatch.setattr(Conf, "CLUSTER_NAME", settings.Q_CLUSTER["name"])
    path = {"PYTHONPATH": os.pathsep.join([str(written), os.environ["PYTHONPATH"]]), "TEST_APPS": '["shipping"]'}
    cluster = mscluster("--workers", "2", **path)
    mscluster("--workers", "1", "--name", other_cluster("long"), wait=False, **path)
    namespaces: dict[Path, dict[str, Any]] = {page: {"__name__": page.stem} for page in PAGES}
    for block in of("python"):
        if block.file is None:
            with in_schema("acme_corp"):
                run(block, namespaces[block.path])
    assert cluster.stop() == 0
    assert "lease of acme_corp: acme_corp: invoice 18 for 120" in cluster.log, "the hook was called"
    (head,) = (block.text for block in BLOCKS if "mscluster\n  cluster" in block.text)
    shown = re.split(r"^\d{4}-", cluster.log, maxsplit=1, flags=re.MULTILINE)[0]  # the log follows
    heads = [re.findall(r"^  (\w+) +\S", text, re.MULTILINE) for text in (head, shown)]
    assert heads[0] == heads[1], "the block at the start of a cluster"
    assert head.splitlines()[1] == cluster.log.splitlines()[0]


@pytest.mark.parametrize(
    "columns",
    [site_tables._CLUSTER, site_tables._PROCESS, site_tables._TENANT, msschedules._COLUMNS, msfailures._GROUP],
    ids=lambda columns: columns[1],
)
def test_the_tables_of_commands_have_the_columns_that_are_shown(columns):
    lines = [line.split() for block in BLOCKS for line in block.text.splitlines()]
    assert " ".join(columns).split() in lines


@pytest.mark.usefixtures("nobody_configured")
def test_the_commands_run(tenants, mscluster, capsys):
    for block in of("sh"):
        for words in commands(block):
            assert words[:2] == MANAGE.split(), block.place
            if words[2] == "mscluster":
                cluster = mscluster(*words[3:], wait=False)
                assert cluster.process.wait(60) == 0, (block.place, cluster.log)
            else:
                call_command(*words[2:])
    assert "acme_corp" in capsys.readouterr().out


@pytest.mark.usefixtures("nobody_configured")
def test_what_a_command_answers_is_what_the_page_says(tenants, capsys):
    for block in of("console"):
        said = ""
        for line in block.text.splitlines(keepends=True):
            if line.startswith("$ "):
                call_command(*shlex.split(line.removeprefix("$ ").removeprefix(MANAGE)))
                said += line + capsys.readouterr().out
        assert said == block.text, block.place


# Two pages have tests of their own for both tenancy packages, in `test_readme.py`.
SETTINGS = [
    block for block in of("python") if block.file == "settings.py" and block.path.stem not in ("README", "install")
]


@pytest.mark.parametrize("block", SETTINGS, ids=lambda block: block.path.stem)
def test_settings_pass_every_check(block, tenants, written):
    (written / "page_settings.py").write_text(f"from config.settings import *\n\n{block.text}")
    checked = subprocess.run(
        [sys.executable, "-m", "django", "check", "--fail-level", "WARNING"],
        env=os.environ
        | {
            "DJANGO_SETTINGS_MODULE": "page_settings",
            "PYTHONPATH": os.pathsep.join([str(written), os.environ["PYTHONPATH"]]),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert checked.returncode == 0, (block.place, checked.stderr)


def test_every_command_that_is_named_is_there():
    """In pages and files, also in blocks that are not run."""
    from django.core.management import get_commands

    for path in (README, *DOCS.rglob("*.*")):
        if path.suffix in (".md", ".yaml", ".service"):
            for name in re.findall(r"manage\.py,? ([a-z]\w+)", path.read_text()):
                assert name in get_commands(), f"{path.relative_to(ROOT)} names {name}"


def test_every_option_that_is_named_is_there():
    """Of our own commands, also in blocks that are not run."""
    ours = {module.name for module in pkgutil.iter_modules(commands_package.__path__)}
    found = 0
    for page in PAGES:
        for name, words in re.findall(r"python manage\.py (\w+)((?: +(?:--)?[\w-]+)*)", page.read_text()):
            parser = load_command_class("tenant_q", name).create_parser("manage.py", name) if name in ours else None
            for option in re.findall(r"--[\w-]+", words) if parser else ():
                found += 1
                assert option in parser._option_string_actions or _takes(parser, option), f"{page}: {name} {option}"
    assert found > 10


def _takes(parser: Any, option: str) -> bool:
    """Whether a word of the command, as `mstenant limit`, takes the option."""
    groups = [action.choices for action in parser._actions if isinstance(action.choices, dict)]
    return any(option in one._option_string_actions for group in groups for one in group.values())

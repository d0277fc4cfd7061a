"""The examples of `docs` are right: they run and give what they say. `tests.documents` says how blocks are written.

All pages share one cluster, and the files that they show are in one folder; each page has a namespace of its own.
Blocks of `sh` are commands of `manage.py`. A block of `console` shows what they answer. The tutorials have a test of
their own, and so have the files that pages include.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command

from tenant_q.tenancy import in_schema
from tests.documents import DOCS, Block, blocks, pages, run, write_files

PAGES = [page for page in pages() if page.parent.name != "tutorials"]
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
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "written"
    write_files(of("python"), folder)
    monkeypatch.syspath_prepend(folder)
    return folder


def test_the_examples_run_and_give_what_they_say(tenants, mscluster, settings, monkeypatch, written):
    from django_q.conf import Conf

    from tenant_q.brokers import get_broker

    # Plain `async_task` reads the cluster's name where Django-Q2 has put it at import.
    monkeypatch.setattr(Conf, "CLUSTER_NAME", settings.Q_CLUSTER["name"])
    path = {"PYTHONPATH": os.pathsep.join([str(written), os.environ["PYTHONPATH"]])}
    mscluster("--workers", "2", **path)
    mscluster("--workers", "1", "--name", "long", wait=False, **path)
    namespaces: dict[Path, dict[str, Any]] = {page: {"__name__": page.stem} for page in PAGES}
    try:
        for block in of("python"):
            if block.file is None:
                with in_schema("acme_corp"):
                    run(block, namespaces[block.path])
    finally:
        client = get_broker().client
        for key in client.scan_iter("{tq:long}*"):
            client.delete(key)


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


def test_what_a_command_answers_is_what_the_page_says(tenants, capsys):
    for block in of("console"):
        said = ""
        for line in block.text.splitlines(keepends=True):
            if line.startswith("$ "):
                call_command(*shlex.split(line.removeprefix("$ ").removeprefix(MANAGE)))
                said += line + capsys.readouterr().out
        assert said == block.text, block.place


SETTINGS = [block for block in of("python") if block.file == "settings.py"]


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

    for path in DOCS.rglob("*.*"):
        if path.suffix in (".md", ".yaml", ".service"):
            for name in re.findall(r"manage\.py,? ([a-z]\w+)", path.read_text()):
                assert name in get_commands(), f"{path.relative_to(DOCS)} names {name}"

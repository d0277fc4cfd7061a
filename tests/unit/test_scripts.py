"""The text of the broker's Lua scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tenant_q.brokers.redis import scripts

LUA = Path(scripts.__file__).parents[1] / "lua"
COMMON = (LUA / "common.lua").read_text()
NAMES = sorted(path.stem for path in LUA.glob("*.lua") if path.stem != "common")


def defined(text: str) -> set[str]:
    return set(re.findall(r"^local (?:function )?(\w+)", text, re.MULTILINE))


@pytest.mark.parametrize("name", NAMES)
def test_a_script_has_the_shared_functions_that_it_uses(name):
    text = scripts.source(name)
    code = re.sub(r"--.*", "", text)
    used = {word for word in defined(COMMON) if re.search(rf"\b{word}\b", re.sub(rf"^local .*\b{word}\b", "", code))}
    assert used <= defined(text)


def test_a_script_has_no_other_shared_functions():
    """Redis makes each function anew for every call."""
    assert {"settle", "return_unrun"} <= defined(COMMON)
    assert not {"settle", "return_unrun"} & defined(scripts.source("enqueue"))


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_of_a_script_keep_their_numbers(name):
    lines, whole = scripts.source(name).split("\n"), (COMMON + (LUA / f"{name}.lua").read_text()).split("\n")
    assert len(lines) == len(whole)
    assert all(line in (other, re.sub(r"--.*", "", other), "") for line, other in zip(lines, whole, strict=True))

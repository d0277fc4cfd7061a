"""Nothing is lost, and what is transactional takes effect once, whatever is killed when. See `storm`, `flow_storm`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

IS_LONG = os.environ.get("CHAOS") == "long"


@pytest.mark.parametrize("storm", ["storm", "flow_storm"])
def test_storm(storm):
    """In a process of its own, which has servers of its own to kill."""
    command = [sys.executable, "-m", f"tests.chaos.{storm}", *(["--long"] if IS_LONG else [])]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == 0

"""Nothing is lost, and transactional tasks take effect once, whatever is killed when. See `storm`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

IS_LONG = os.environ.get("CHAOS") == "long"


def test_storm():
    """In a process of its own, which has servers of its own to kill."""
    command = [sys.executable, "-m", "tests.chaos.storm", *(["--long"] if IS_LONG else [])]
    ended = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
    print("", ended.stdout, ended.stderr, sep="\n")
    assert ended.returncode == 0

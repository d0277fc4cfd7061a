"""The documentation is built without a warning, and its pages load nothing from another host."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.documents import ROOT, pages

LOADED = re.compile(r"<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=\"?((?:https?:)?//[^\s\">]+)")


def test_the_site_is_built_and_loads_nothing_from_another_host(tmp_path):
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert built.returncode == 0, built.stdout + built.stderr
    made = list(tmp_path.rglob("*.html"))
    assert len(made) == len(pages()) + 1, "each page, and one for what is not found"
    for page in made:
        assert LOADED.findall(page.read_text()) == [], page.name
    for style in tmp_path.rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*[\"']?((?:https?:)?//[^\"')]+)", style.read_text()) == [], style.name

"""The documentation as it is read from the disk: its search finds pages, and nothing is loaded from another host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.documents import ROOT


def test_the_search_works_on_pages_from_the_disk(chromium: str, tmp_path: Path):
    from playwright.sync_api import sync_playwright

    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        check=True,
        timeout=120,
    )
    arguments = ["--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page()
        page.set_default_timeout(60_000)
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((tmp_path / "how-to" / "watch.html").as_uri())
        page.locator("input[data-md-component='search-query']").fill("fencing token")
        page.locator("a.md-search-result__link").first.wait_for(state="attached")
        browser.close()
    assert [url for url in asked if url.startswith("http")] == []

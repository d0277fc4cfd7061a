#!/usr/bin/env python
"""Make the links of README.md absolute, for package indexes, which do not resolve relative links.

    .venv/bin/python scripts/absolute_links.py https://github.com/OWNER/REPOSITORY/blob/v0.1.0

A release runs it before the wheel is built, and does not commit the result.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"
_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<target>(?![a-z]+:|#)[^)\s]+)\)")


def absolute(text: str, address: str) -> str:
    """Return the text with links to files below `address`. A picture is linked as its file, not as a page about it."""

    def replace(link: re.Match[str]) -> str:
        suffix = "?raw=true" if link["image"] else ""
        return f"{link['image']}[{link['text']}]({address.rstrip('/')}/{link['target']}{suffix})"

    return _LINK.sub(replace, text)


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].startswith("https://"):
        sys.exit("Error: name the address of the repository's files at the release, such as https://.../blob/v0.1.0.")
    README.write_text(absolute(README.read_text(), sys.argv[1]))

"""Find phrases that the project's language avoids, in code, documentation and tests. Exit with 1 if there are any.

`make lint` runs it. The list is in this file, which is the only one that may contain them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

# A phrase, and what to write instead.
PHRASES = {
    r"how-manieth": "the number of ..., counted from 1",
    r"so many (?:others|together|times|seconds|of)": "the number itself: at most ..., each ...",
    r"mend(?:s|ed|ing)?": "fix, correct, repair",
    r"(?:is|are|was|were|be|been) told": "is logged, reported, sent, called, shown",
    r"tells? (?:of|what|that|how|more|the|whether)": "say, report, describe, show",
    r"in hand": "held, kept, locked",
}
_PATTERN = re.compile("|".join(rf"\b(?:{phrase})\b" for phrase in PHRASES), re.IGNORECASE)


def main() -> int:
    """Print each line that has such a phrase, and what to write instead."""
    listed = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
    found = 0
    for name in filter(None, listed):
        path = Path(name)
        if path.resolve() == Path(__file__).resolve() or not path.is_file():
            continue
        try:
            lines = path.read_text().splitlines()
        except UnicodeDecodeError:  # a picture
            continue
        for number, line in enumerate(lines, start=1):
            for match in _PATTERN.finditer(line):
                found += 1
                print(f"{name}:{number}: {match.group()!r}; write: {_instead_of(match.group())}")
    return 1 if found else 0


def _instead_of(text: str) -> str:
    return next(instead for phrase, instead in PHRASES.items() if re.fullmatch(phrase, text, re.IGNORECASE))


if __name__ == "__main__":
    sys.exit(main())

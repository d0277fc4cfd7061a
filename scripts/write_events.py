"""Write the table of events of `docs/reference/logging.md` from the calls of loggers in `tenant_q`.

A test fails when the page is not up to date.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/reference/logging.md"
ORDER = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
LEVELS = {"debug": "DEBUG", "info": "INFO", "warning": "WARNING", "error": "ERROR", "exception": "ERROR"}
LEVELS |= {"critical": "CRITICAL", "log": ""}  # of its first argument


@dataclass(frozen=True, order=True)
class Call:
    """A call of a logger; `event` is empty if the call names none."""

    event: str
    level: str
    text: str
    place: str


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(written(PAGE.read_text()))


def written(page: str) -> str:
    """Return the text of the page with the table that the code describes."""
    lines = ["| event | level | text |", "|---|---|---|"]
    for event, group in itertools.groupby(sorted(calls()), key=lambda call: call.event):
        of_event = list(group)
        levels = ", ".join(dict.fromkeys(call.level for call in of_event))
        texts = " / ".join(dict.fromkeys(call.text for call in of_event))
        lines.append(f"| `{event}` | {levels} | {texts} |")
    begin, end = "<!-- events -->\n", "<!-- end of events -->"
    head, _, rest = page.partition(begin)
    return head + begin + "\n".join(lines) + "\n" + end + rest.partition(end)[2]


def calls() -> Iterator[Call]:
    """Yield each call of a logger in `tenant_q`."""
    for path in sorted((ROOT / "tenant_q").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (level := _level(node)) is not None and path.name != "log_labels.py":
                text = " / ".join(map(_shown, _texts(node, tree))) or "…"
                level = level or _chosen_levels(node, tree)
                yield Call(_event(node), level, text, f"{path.relative_to(ROOT)}:{node.lineno}")


def _level(call: ast.Call) -> str | None:
    if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value).endswith("logger"):
        return LEVELS.get(call.func.attr)
    return None


def _chosen_levels(call: ast.Call, module: ast.Module) -> str:
    """Return the levels, from the lowest, that the first argument of `log()` may have."""
    chosen: list[ast.expr] = [call.args[0]]
    if isinstance(call.args[0], ast.Name):
        chosen = _assigned(call.args[0].id, module)
    names = {node.attr for value in chosen for node in ast.walk(value) if isinstance(node, ast.Attribute)}
    return ", ".join(level for level in ORDER if level in names)


def _assigned(name: str, module: ast.Module) -> list[ast.expr]:
    """Return what is assigned to a name anywhere in a module."""
    found = (node for node in ast.walk(module) if isinstance(node, ast.Assign))
    return [node.value for node in found if ast.unparse(node.targets[0]) == name]


def _event(call: ast.Call) -> str:
    named = (word.value for word in call.keywords if word.arg == "event")
    return next((str(value.value) for value in named if isinstance(value, ast.Constant)), "")


def _texts(call: ast.Call, module: ast.Module) -> list[str]:
    """Return the text of a call, or all texts that are assigned to the name that stands in its place."""
    message = call.args[1] if ast.unparse(call.func).endswith(".log") else call.args[0]
    values: list[ast.expr] = [message]
    if isinstance(message, ast.Name):
        values = _assigned(message.id, module)
    return [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]


def _shown(text: str) -> str:
    return re.sub(r"…( ?…)+", "…", re.sub(r"%[-+ #0-9.]*[a-z]", "…", text)).replace("|", "\\|")


if __name__ == "__main__":
    main()

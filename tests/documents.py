"""The README and the pages of `docs`: their blocks of code, sections and tables, and how their examples are run.

A block of Python whose first line is `# path.py` is that file; all others are run, in their order and in one namespace
for each page. `expression  # → value` is compared. A block that no test can run has a comment before it that says why:
`<!-- not run: needs Docker -->`.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ARROW = "# → "
_FENCE = re.compile(
    r'^(?:<!-- not run: (?P<why>[^\n]*?) -->\n+)?```(?P<language>\w*)(?: title="(?P<title>[^"\n]*)")?\n'
    r"(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """A fenced block; `line` is the document's line of its first line, `why_not` the reason why it is not run."""

    language: str
    line: int
    text: str
    path: Path = ROOT / "README.md"
    title: str = ""
    why_not: str = ""

    @property
    def file(self) -> str | None:
        """The file that the block is, or that it is added to, if it says so."""
        first = re.match(r"# (\S+\.py)(?:, at the end)?\n", self.text)
        return first[1] if first else None

    @property
    def is_appended(self) -> bool:
        return ", at the end\n" in self.text.partition("\n")[0] + "\n"

    @property
    def place(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """Every page of the documentation."""
    return sorted(DOCS.rglob("*.md"))


def blocks(path: Path) -> list[Block]:
    text = path.read_text()
    return [
        Block(
            language=found["language"],
            line=text[: found.start("text")].count("\n") + 1,
            text=found["text"],
            path=path,
            title=found["title"] or "",
            why_not=found["why"] or "",
        )
        for found in _FENCE.finditer(text)
    ]


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def section(path: Path, title: str) -> str:
    """The text under a heading, up to the next of any level, without its blocks of code."""
    text = without_blocks(path.read_text())
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#+ |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"{path.relative_to(ROOT)} has no heading {title!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without their heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    heads = {place - 1 for place, line in enumerate(lines) if set(line) <= set("|-: ")}
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for place, line in enumerate(lines)
        if place not in heads and place - 1 not in heads
    ]


def names(text: str) -> set[str]:
    return set(re.findall(r"`([^`\s]+)`", text))


def attributes(examples: list[Block]) -> set[str]:
    """Every attribute that examples name."""
    return {
        node.attr for block in examples for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Attribute)
    }


# Running examples


class _Compare(ast.NodeTransformer):
    """Turn `expression  # → value` into a comparison."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines
        self.compared = 0

    def visit_Expr(self, node: ast.Expr) -> ast.Expr:
        _, arrow, wanted = self.lines[(node.end_lineno or 0) - 1].partition(ARROW)
        if arrow:
            self.compared += 1
            call = ast.parse("_compare(None, None)", mode="eval").body
            assert isinstance(call, ast.Call)
            call.args = [node.value, ast.Constant(wanted)]
            node.value = call
        return node


def _compare(found: Any, wanted: str) -> None:
    assert found == ast.literal_eval(wanted), f"it is {found!r}, and the page says {wanted}"


def run(block: Block, namespace: dict[str, Any]) -> None:
    """Run an example, patiently. A traceback names the document's line."""
    tree = ast.parse(block.text.replace("wait=5000", "wait=30000"))
    compare = _Compare(block.text.splitlines())
    tree = ast.fix_missing_locations(compare.visit(tree))
    assert compare.compared == block.text.count("→"), f"line {block.line}: {ARROW!r} stands only behind an expression"
    ast.increment_lineno(tree, block.line - 1)
    namespace["_compare"] = _compare
    exec(compile(tree, str(block.path), "exec"), namespace)


def write_files(found: list[Block], folder: Path) -> None:
    """Write the files that blocks are into `folder`, each in a package. What several say of one file is all in it."""
    for block in found:
        if block.file and block.file != "settings.py":
            path = folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            (path.parent / "__init__.py").touch()
            with path.open("a") as file:
                file.write(block.text)

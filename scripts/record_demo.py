#!/usr/bin/env python
"""Record a run of `make demo` as an animated picture, docs/assets/demo.svg.

    .venv/bin/pip install pyte
    .venv/bin/python scripts/record_demo.py

The script runs the demo in a pseudo-terminal, ends it with Ctrl-C and writes what the terminal showed until then.
Pauses are shortened to at most `MAX_PAUSE` seconds; nothing else is changed. The picture needs no script and no font of
its own. Where animations are off, it shows the last moment.
"""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PICTURE = ROOT / "docs" / "assets" / "demo.svg"
COMMAND = ["make", "demo"]
COLUMNS, ROWS = 84, 22
RUN_SECONDS = 16  # from the first table to Ctrl-C
LIMIT_SECONDS = 300
MAX_PAUSE = 1.5
LAST_MOMENT = 4.0
CELL = (8.43, 17)  # pixels, of a monospaced font of 14 pixels
MARGIN = (18, 52)
COLOURS = {"green": "#7ee787", "red": "#ff7b72", "default": "#e6edf3"}

Row = tuple[int, str]  # its number from the top, and its text as SVG


def record() -> list[tuple[float, str]]:
    """Run the demo and return what it wrote, each piece with its time in seconds."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ["TERM"] = "xterm-256color"
        os.execvp(COMMAND[0], COMMAND)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    started = time.monotonic()
    pieces: list[tuple[float, str]] = []
    table_at = end_at = None
    while (now := time.monotonic() - started) < LIMIT_SECONDS:
        if table_at and not end_at and now > table_at + RUN_SECONDS:
            os.write(terminal, b"\x03")
            end_at = now
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            text = os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # the demo has ended
            break
        if not end_at:
            pieces.append((now, text))
        if not table_at and "schedules" in text:
            table_at = now
    os.waitpid(pid, 0)
    if not end_at:
        sys.exit("Error: the demo ended before it showed a table; run `make demo` to see why.")
    return pieces


def moments(pieces: list[tuple[float, str]]) -> Iterator[tuple[float, set[Row]]]:
    """Yield the screen after each piece, with its time in the picture."""
    import pyte

    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    stream.feed(f"$ {' '.join(COMMAND)}\r\n")
    at, before = 0.0, pieces[0][0]
    yield at, rows_of(screen)
    for now, text in pieces:
        at += min(max(now - before, 0.02), MAX_PAUSE)
        before = now
        stream.feed(text)
        yield at, rows_of(screen)


def rows_of(screen: Any) -> set[Row]:
    found = set()
    for number in range(ROWS):
        cells = [screen.buffer[number][column] for column in range(COLUMNS)]
        text, column = "", 0
        for (colour, bold), run in groupby(cells, lambda cell: (cell.fg, cell.bold)):
            data = "".join(cell.data for cell in run)
            if data.strip():
                x = round(MARGIN[0] + column * CELL[0], 1)
                length = round(len(data) * CELL[0], 1)
                style = f' fill="{COLOURS[colour]}"' if colour in COLOURS and colour != "default" else ""
                style += ' font-weight="bold"' if bold else ""
                text += f'<tspan x="{x}" textLength="{length}"{style}>{escape(data)}</tspan>'
            column += len(data)
        if text:
            found.add((number, text))
    return found


def draw(screens: list[tuple[float, set[Row]]]) -> str:
    """Draw each row once, visible while the terminal showed it."""
    total = screens[-1][0] + LAST_MOMENT
    ends = [at for at, _ in screens[1:]] + [total]
    shown: dict[Row, list[tuple[float, float]]] = {}
    for (start, rows), end in zip(screens, ends, strict=True):
        for row in rows:
            spans = shown.setdefault(row, [])
            if spans and spans[-1][1] == start:
                spans[-1] = (spans[-1][0], end)
            else:
                spans.append((start, end))
    styles, texts = [], []
    for place, ((number, text), spans) in enumerate(sorted(shown.items())):
        name = f"r{place}"
        steps = ["0%{visibility:hidden}"] if spans[0][0] > 0 else []
        for start, end in spans:
            steps.append(f"{start / total:.2%}{{visibility:visible}}")
            if end < total:
                steps.append(f"{end / total:.2%}{{visibility:hidden}}")
        is_last = spans[-1][1] == total
        styles.append(f"@keyframes {name}{{{''.join(steps)}}}#{name}{{animation-name:{name}}}")
        hidden = "" if is_last else ' visibility="hidden"'
        y = MARGIN[1] + 14 + number * CELL[1]
        texts.append(f'<text id="{name}" y="{y}"{hidden}>{text}</text>')
    width, height = round(COLUMNS * CELL[0] + 2 * MARGIN[0]), MARGIN[1] + ROWS * CELL[1] + 14
    style = (
        "text{white-space:pre;font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        f"fill:{COLOURS['default']};animation:{total:.2f}s step-end infinite}}#t{{fill:#8b949e;animation:none}}"
        "@media (prefers-reduced-motion:reduce){text{animation-duration:0s}}" + "".join(styles)
    )
    buttons = "".join(
        f'<circle cx="{22 + 20 * place}" cy="20" r="6" fill="{colour}"/>'
        for place, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img"',
        f' width="{width}" height="{height}">',
        "<title>A terminal: make demo runs the tasks of three tenants</title>",
        f"<style>{style}</style>",
        f'<rect x=".5" y=".5" width="{width - 1}" height="{height - 1}" rx="9" fill="#0d1117" stroke="#6e7681"/>',
        buttons,
        f'<text id="t" x="{width / 2}" y="25" text-anchor="middle">tenant_q, pauses shortened</text>',
        *texts,
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    PICTURE.write_text(draw(list(moments(record()))))
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()

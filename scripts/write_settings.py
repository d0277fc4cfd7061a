"""Write the tables of `docs/reference/settings.md` from the table of settings in `tenant_q/conf/table.py`.

A test fails when the page is not up to date.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from tenant_q.conf.setting import Setting
from tenant_q.conf.table import ATTRIBUTES, OTHERS

PAGE = Path(__file__).parent.parent / "docs/reference/settings.md"


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(written(PAGE.read_text()))


def written(page: str) -> str:
    """Return the text of the page with the tables that the code describes."""
    described = list(ATTRIBUTES.values())
    tables = {
        "tasks": _q_cluster_table(each for each in described if each.place == "Q_CLUSTER"),
        "brokers": _q_cluster_table(each for each in OTHERS if not each.no_effect),
        "no effect": _no_effect_table(each for each in OTHERS if each.no_effect),
        "ours": _our_table(each for each in described if each.place == "TENANT_Q"),
    }
    for name, rows in tables.items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end of table -->\n"
        pattern = re.compile(f"({re.escape(begin)}).*?({re.escape(end)})", re.DOTALL)
        found = pattern.search(page)
        assert found, f"{PAGE} has no table {name!r}"
        text = "\n".join(["", *("| " + " | ".join(row) + " |" for row in rows), "", ""])
        page = page[: found.start()] + found[1] + text + found[2] + page[found.end() :]
    return page


def _q_cluster_table(settings: Iterable[Setting]) -> list[list[str]]:
    return [
        *_head("key", "unit", "default", "meaning", "differs from Django-Q2"),
        *([f"`{one.key}`", _unit(one), one.default, one.help, one.differs] for one in settings),
    ]


def _no_effect_table(settings: Iterable[Setting]) -> list[list[str]]:
    return [
        *_head("key", "why"),
        *([f"`{one.key}`", "; ".join(filter(None, [one.no_effect, one.help]))] for one in settings),
    ]


def _our_table(settings: Iterable[Setting]) -> list[list[str]]:
    return [
        *_head("key", "unit", "default", "meaning"),
        *([f"`{one.key}`", _unit(one), one.default, one.help] for one in settings),
    ]


def _head(*titles: str) -> list[list[str]]:
    return [list(titles), ["---"] * len(titles)]


def _unit(setting: Setting) -> str:
    least = f"at least {setting.minimum}" if setting.minimum else ""
    return ", ".join(filter(None, [setting.unit, least]))


if __name__ == "__main__":
    main()

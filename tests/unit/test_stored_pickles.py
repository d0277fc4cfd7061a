"""What a broker keeps is read by other versions, so no pickle in it may name a module of ours: modules move."""

from __future__ import annotations

import io
import pickletools
import sys
import types
import uuid
from typing import Any

import pytest
from django.utils import timezone
from django_q.signing import SignedPackage
from django_q.status import Stat

from tenant_q.operations import published_status, status
from tenant_q.package.build import build
from tenant_q.package.envelope import seal
from tenant_q.package.signing import unsign


class Board:
    """The part of a broker that keeps statuses."""

    def __init__(self, *signed: str) -> None:
        self.signed = list(signed)

    def set_stat(self, key: str, signed: str, seconds: float) -> None:
        self.signed.append(signed)

    def get_stats(self, pattern: str) -> list[bytes]:
        return [one.encode() for one in self.signed]

    def last_stats(self) -> list[bytes]:
        return []


def fields() -> dict[str, Any]:
    return {"cluster_id": uuid.uuid4(), "parent": 7, "started": timezone.now(), "state": status.ClusterState.WORKING}


def stat() -> published_status.ClusterStat:
    processes = [status.Process("worker", 9, "w:9", done=3)]
    deaths = [status.Death(1.0, "worker", 8, "killed by SIGKILL")]
    return published_status.ClusterStat(
        **fields(), workers_wanted=1, has_scheduler=True, processes=processes, reincarnations=1, deaths=deaths
    )


def modules_named_in(signed: str) -> set[str]:
    """Return the modules that a pickle imports, which are among its texts."""
    texts = [argument for _, argument, _ in pickletools.genops(io.BytesIO(unsign(signed))) if isinstance(argument, str)]
    return {word for text in texts for word in text.split() if word == "tenant_q" or word.startswith("tenant_q.")}


def test_a_status_names_no_module_of_ours():
    board = Board()
    stat().publish(board)  # type: ignore[arg-type]
    assert modules_named_in(board.signed[0]) == {"tenant_q"}, "the key under which it has our own fields"
    assert type(SignedPackage.loads(board.signed[0])) is Stat


def test_a_package_names_no_module_of_ours():
    options = {"group": "g", "timeout": 5, "delay": 1, "hook": "math.floor", "transactional": True, "max_attempts": 2}
    assert modules_named_in(seal(build("math.floor", (1,), {"q_options": options}, schema="acme_corp"))) == set()


def test_the_status_of_a_cluster_from_before_the_folders_opens(monkeypatch: pytest.MonkeyPatch):
    before = types.ModuleType("tenant_q.status")
    kind: Any = type("ClusterStat", (Stat,), {"__module__": before.__name__, "__getstate__": lambda self: vars(self)})
    before.ClusterStat = kind
    old = kind.__new__(kind)
    vars(old).update(vars(stat()))
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, before.__name__, before)
        signed = SignedPackage.dumps(old)
    assert modules_named_in(signed) == {"tenant_q", "tenant_q.status"}
    (found,) = status.clusters(Board(signed))  # type: ignore[arg-type]
    assert (found.parent, found.state, found.processes[0].done) == (7, "working", 3)
    assert found.is_ours and not found.is_gone and str(found.deaths[0].how) == "killed by SIGKILL"

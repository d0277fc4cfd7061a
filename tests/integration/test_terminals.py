"""What a tenant calls its tasks and schedules, on operators' terminals, pages and in logs."""

from __future__ import annotations

import io
import json
import logging
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone
from django_q.models import Schedule, Task
from prometheus_client import generate_latest

from tenant_q import audit
from tenant_q.brokers import get_broker
from tenant_q.operations import metrics
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests.integration.conftest import work
from tests.unit.test_visible import EVIL, Terminal, has_control

ACME = "acme_corp"
FORGED = f"x{EVIL}\nLINE - all is well"
SHOWN = r"\x1b]0;owned\x07\x1b[2J\u202eevil\x9bm"


def answer(command: str, *arguments: str) -> str:
    out = Terminal()
    call_command(command, *arguments, stdout=out, stderr=out, no_color=True)
    return out.getvalue()


def raise_evil(text: str = FORGED) -> None:
    raise ValueError(text)


def evil_hook(task: Any) -> None:
    raise ValueError(FORGED)


@pytest.fixture
def lines():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("LINE %(name)s %(schema)s %(func)s %(message)s"))
    logger = logging.getLogger("tenant_q")
    logger.addHandler(handler)
    yield stream
    logger.removeHandler(handler)


def test_schedules_and_dead_tasks_on_a_terminal(tenants, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    with in_schema(ACME):
        later = timezone.now() + timedelta(hours=1)
        Schedule.objects.bulk_create([Schedule(name=EVIL, func=EVIL, next_run=later)])  # save() refuses it
        QUtilities.add_async_task("a.b")
    broker = get_broker()
    broker.dead_letter("w1", broker.fetch("w1").leases[0], FORGED)
    for command in ("msschedules", "msdead", "msinfo", "mstenant"):
        shown = answer(command)
        assert not has_control(shown, but="\n"), ascii(shown)
        if command in ("msschedules", "msdead"):
            assert SHOWN in shown
            as_json = answer(command, "--json")
            assert not has_control(as_json, but="\n") and EVIL in " ".join(map(str, json.loads(as_json)[0].values()))


def test_what_runs_on_a_terminal(tenants, monkeypatch):
    from django.core.management.base import OutputWrapper

    from tenant_q.management import site_tables
    from tenant_q.management.commands.msinfo import Command
    from tenant_q.operations.status import ClusterState, ClusterStatus, Death, Process

    monkeypatch.setenv("COLUMNS", "2000")
    now = timezone.now()
    process = Process(
        role="worker", pid=1, key="k", done=0, seconds=1.0, schema=EVIL, func=FORGED, task_id=EVIL, silent=0.0
    )
    death = Death(at=now.timestamp(), role="worker", pid=1, how=FORGED, schema=EVIL, func=FORGED, task_id=EVIL)
    one = ClusterStatus(
        id="1", name=EVIL, host=FORGED, version="1", parent=1, sentinel=2, started=now, seen=now,
        state=ClusterState.WORKING,
        is_gone=False, trouble=FORGED, workers=1, has_scheduler=True, restarts=0, processes=(process,), deaths=(death,),
    )  # fmt: skip
    out = Terminal()
    command = Command(stdout=out, no_color=True)
    command._no_color, command._force_color = True, False
    command.stdout = OutputWrapper(out)
    found = site_tables.processes([one])
    command.show(site_tables.cluster_table([one]), site_tables.process_table(found), *site_tables.death_lines([one]))
    text = out.getvalue()
    assert not has_control(text, but="\n"), ascii(text)
    assert text.count(SHOWN) >= 8


def test_errors_of_the_commands_on_a_terminal(tenants):
    with pytest.raises(Exception, match="owned") as caught:
        answer("mstenant", "pause", EVIL)
    assert not has_control(str(caught.value))


def test_a_log_has_a_line_for_each_record(tenants, worker, lines):
    with in_schema(ACME):
        QUtilities.add_async_task(f"{__name__}.raise_evil", task_name=FORGED[:100], hook=f"{__name__}.evil_hook")
        QUtilities.add_async_task(FORGED, group=EVIL)
    work(worker)
    with in_schema(ACME):
        assert Task.objects.filter(success=False).count() == 2
    text = lines.getvalue()
    assert not has_control(text, but="\n"), ascii(text)
    assert "The hook of x" in text and "Traceback" in text and SHOWN in text
    for line in text.splitlines():
        assert not line.startswith("LINE - all is well"), text


def test_an_audit_record_and_a_message_in_the_admin(tenants, client):
    from django.contrib.auth import get_user_model

    from tenant_q.admin.operators import AuditRecordAdmin
    from tenant_q.models import AuditRecord

    record = audit.record("me", "pause schedule", schema=ACME, target=EVIL, after={"name": EVIL})
    page = AuditRecordAdmin(AuditRecord, None)
    for shown in (page.change(record), page.short_target(record), page.shown_after(record), page.shown_before(record)):
        assert not has_control(shown, but="\n"), ascii(shown)
    assert get_user_model()


def test_names_in_the_metrics(tenants, worker):
    with in_schema(ACME):
        QUtilities.add_async_task(FORGED)
    work(worker)
    exposed = generate_latest(metrics.registry()).decode()
    assert not has_control(exposed, but="\n") and connection.schema_name == "public"

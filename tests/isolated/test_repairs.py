"""A role that changed its own password or settings is repaired by a scheduler, and by one only."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from django.db import connections

from tenant_q import tenancy
from tenant_q.cluster import scheduler_repairs
from tenant_q.cluster.scheduler import Scheduler
from tenant_q.cluster.shared_memory import Slot
from tenant_q.exceptions import ProvisioningError
from tenant_q.models import AuditRecord, TenantRole
from tenant_q.provisioning import repair_marked, repair_tenant, roles
from tenant_q.tenancy.repair_marks import mark_for_repair
from tests.conftest import wait_until
from tests.isolated.kills import killed_at_each
from tests.isolated.role_rows import give_roles, is_let_in, password, row
from tests.schemas import TENANTS

pytestmark = pytest.mark.seam
# What a tenant's role can do to itself.
CHANGES = (
    "ALTER ROLE CURRENT_USER PASSWORD 'mine'",
    "ALTER ROLE CURRENT_USER PASSWORD NULL",
    "ALTER ROLE CURRENT_USER SET search_path TO 'globex_inc'",
    "ALTER ROLE CURRENT_USER SET statement_timeout TO 1",
    "ALTER ROLE CURRENT_USER SET role TO 'none'",
    "ALTER ROLE CURRENT_USER SET local_preload_libraries TO 'nowhere'",
    "DO $$BEGIN EXECUTE format('ALTER ROLE CURRENT_USER IN DATABASE %I SET work_mem TO 64', current_database()); END$$",
)


@pytest.fixture
def site(isolated_site) -> Any:
    """A site whose three tenants have roles."""
    give_roles(isolated_site, *TENANTS)
    return isolated_site


def spoil(site: Any, schema: str, *changes: str, mark: bool = True) -> None:
    """A task of the tenant changes its role, and a worker marks it."""
    with site.session(row(schema).role, password(site, schema)) as own:
        for change in changes or CHANGES:
            own.execute(change)
    if mark:
        assert mark_for_repair(schema, version=row(schema).version, problem="it changed itself")


def settings_of(site: Any, schema: str) -> list[Any]:
    return site.sql("SELECT setconfig FROM pg_db_role_setting WHERE setrole = %s::regrole", row(schema).role)


@pytest.mark.parametrize("change", CHANGES)
def test_what_a_role_does_to_itself_is_undone(site, change):
    spoil(site, "acme_corp", change)
    assert not is_let_in(site, "acme_corp") or settings_of(site, "acme_corp")
    assert repair_tenant("acme_corp")
    assert is_let_in(site, "acme_corp")
    assert settings_of(site, "acme_corp") == []
    assert (row("acme_corp").state, row("acme_corp").problem) == ("active", "")
    record = AuditRecord.objects.get(act="repair")
    assert (record.actor, record.schema_name, record.before) == (
        "scheduler",
        "acme_corp",
        {"problem": "it changed itself"},
    )


def test_attributes_and_limit_are_as_in_the_row(site):
    role = row("acme_corp").role
    site.sql(f"ALTER ROLE \"{role}\" NOLOGIN INHERIT CREATEROLE CONNECTION LIMIT 0 VALID UNTIL '2001-01-01'")
    with tenancy.in_public():
        TenantRole.objects.filter(schema_name="acme_corp").update(connection_limit=3, version=7)
    assert mark_for_repair("acme_corp", version=7, problem="refused")
    assert repair_tenant("acme_corp")
    assert is_let_in(site, "acme_corp", 7)
    assert site.sql(
        "SELECT rolcanlogin, rolinherit, rolcreaterole, rolconnlimit, rolvaliduntil FROM pg_roles WHERE rolname = %s",
        role,
    ) == [(True, False, False, 3, datetime(9999, 1, 1, tzinfo=UTC))], "a date that Python can read"


def test_only_the_version_that_was_refused_is_marked(site):
    assert not mark_for_repair("acme_corp", version=2, problem="refused")
    assert not mark_for_repair("nobody", version=1, problem="refused")
    assert mark_for_repair("acme_corp", version=1, problem="refused")
    assert not mark_for_repair("acme_corp", version=1, problem="again")
    assert (row("acme_corp").state, row("acme_corp").problem) == ("repair", "refused")


def test_what_is_not_marked_is_not_repaired(site):
    spoil(site, "acme_corp", CHANGES[0], mark=False)
    assert not repair_tenant("acme_corp")
    assert repair_marked(60.0).repaired == []
    assert not is_let_in(site, "acme_corp")


def test_a_repair_killed_anywhere_is_done_by_the_next(site):
    spoil(site, "acme_corp")
    for place in killed_at_each(lambda: repair_tenant("acme_corp")):
        repair_tenant("acme_corp")
        assert is_let_in(site, "acme_corp"), place
        assert (row("acme_corp").state, settings_of(site, "acme_corp")) == ("active", []), place
        spoil(site, "acme_corp")


def test_one_of_several_schedulers_repairs_a_role(site):
    for schema in TENANTS:
        spoil(site, schema)
    found = []

    def repair() -> None:
        found.append(repair_marked(60.0))
        connections.close_all()

    threads = [threading.Thread(target=repair) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(schema for one in found for schema in one.repaired) == sorted(TENANTS)
    assert AuditRecord.objects.filter(act="repair").count() == 3
    assert not any(one.failed for one in found)


def test_a_role_that_holds_itself_locked_does_not_keep_the_scheduler(site):
    """Its sessions are ended, those of other tenants are not."""
    spoil(site, "acme_corp", "ALTER ROLE CURRENT_USER SET work_mem TO 64")
    with (
        site.session(row("acme_corp").role, password(site, "acme_corp")) as own,
        site.session(row("globex_inc").role, password(site, "globex_inc")) as other,
    ):
        own.execute("BEGIN")
        own.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'")
        assert repair_marked(60.0).repaired == ["acme_corp"]
        with pytest.raises(psycopg.OperationalError):
            own.execute("COMMIT")
        assert other.execute("SELECT 1").fetchone() == (1,)
    assert is_let_in(site, "acme_corp")


def test_a_role_that_is_gone_is_named_and_does_not_stop_the_others(site):
    site.sql(f'DROP ROLE "{row("acme_corp").role}"')
    assert mark_for_repair("acme_corp", version=1, problem="refused")
    spoil(site, "globex_inc")
    done = repair_marked(60.0)
    assert done.repaired == ["globex_inc"]
    assert "mstenant provision acme_corp --adopt" in done.failed["acme_corp"]
    with pytest.raises(ProvisioningError, match="does not exist"):
        repair_tenant("acme_corp")
    assert row("acme_corp").state == "repair"


# The scheduler


@pytest.fixture
def scheduler(site) -> Any:
    made = Scheduler(Slot())
    while made.tick() < 1:
        pass
    yield made
    made.stopping.restore()


def ticks_until_rest(scheduler: Scheduler) -> int:
    count = 1
    while scheduler.tick() < 1:
        count += 1
        assert count < 20
    return count


def test_the_scheduler_is_notified_of_a_mark_and_repairs_the_role(site, scheduler):
    with psycopg.connect(site.owner_url, autocommit=True) as worker:
        spoil(site, "acme_corp", mark=False)
        assert not scheduler.stopping.wait(0, *scheduler.files())
        mark_from(worker, "acme_corp")
        scheduler.stopping.wait(10, *scheduler.files())
    ticks_until_rest(scheduler)
    assert row("acme_corp").state == "active"
    assert is_let_in(site, "acme_corp")


def mark_from(worker: psycopg.Connection[Any], schema: str) -> None:
    worker.execute("UPDATE public.tenant_q_tenantrole SET state = 'repair' WHERE schema_name = %s", [schema])
    worker.execute("SELECT pg_notify('tenant_q_repair', %s)", [schema])


def test_a_real_cluster_repairs_a_marked_role_within_a_second(site, capsys):
    cluster = site.mscluster(workers=1)
    wait_until(lambda: "Verified the due index" in cluster.log, what="the scheduler to be at rest")
    spoil(site, "acme_corp")
    wait_until(lambda: row("acme_corp").state == "active", 20, "the repair")
    assert is_let_in(site, "acme_corp")
    (lateness,) = site.sql("SELECT max(at) - now() FROM public.tenant_q_auditrecord WHERE act = 'repair'")
    with capsys.disabled():
        print(f"\n  {lateness[0]}")
    assert "Repaired the role" in cluster.log


def test_a_role_that_is_marked_again_and_again_is_repaired_at_most_ten_times_a_minute(site, scheduler, monkeypatch):
    repairs = 0
    for _ in range(15):
        mark_for_repair("acme_corp", version=1, problem="refused")
        scheduler.session.has_marks = True
        ticks_until_rest(scheduler)
        repairs = AuditRecord.objects.filter(act="repair").count()
    assert repairs == scheduler_repairs.MOST_REPAIRS
    spoil(site, "globex_inc")
    ticks_until_rest(scheduler)
    assert row("globex_inc").state == "active"
    clock = scheduler_repairs.time.monotonic() + scheduler_repairs.WINDOW_SECONDS + 1
    monkeypatch.setattr(scheduler_repairs.time, "monotonic", lambda: clock)
    scheduler.tick()
    assert row("acme_corp").state == "active"


def test_what_cannot_be_repaired_is_logged_once_and_schedules_fire(site, scheduler, caplog, monkeypatch):
    def refuse(*arguments: Any, **values: Any) -> None:
        raise ProvisioningError("no")

    monkeypatch.setattr(roles, "create_or_correct", refuse)
    with caplog.at_level(logging.ERROR, "tenant_q"):
        for _ in range(3):
            mark_for_repair("acme_corp", version=1, problem="refused")
            scheduler.session.has_marks = True
            assert ticks_until_rest(scheduler) <= 3
    (record,) = [one for one in caplog.records if one.event == "tenant_role.repair_failed"]
    assert record.schema == "acme_corp"


def test_a_scheduler_without_the_admins_session_leaves_marks_to_others(site, caplog):
    spoil(site, "acme_corp")
    with site.here(admin_database=None):
        made = Scheduler(Slot())
        try:
            ticks_until_rest(made)
        finally:
            made.stopping.restore()
    assert row("acme_corp").state == "repair"
    assert "TENANT_Q['admin_database'] is not set" in caplog.text


@pytest.mark.parametrize("isolated_site", ["path"], indirect=True)
def test_without_isolation_the_scheduler_reads_no_roles_and_listens_to_no_marks(isolated_site):
    mark = isolated_site.server.log_size()
    made = Scheduler(Slot())
    try:
        ticks_until_rest(made)
    finally:
        made.stopping.restore()
    log = isolated_site.server.log(mark)
    assert "LISTEN" in log
    assert "tenant_q_repair" not in log
    assert "tenantrole" not in log


def test_without_isolation_nothing_of_provisioning_is_imported():
    code = (
        "import django, sys; django.setup(); import tenant_q.cluster.parent, tenant_q.cluster.scheduler as one; "
        "one._repairs(None); print([name for name in sys.modules if 'provisioning' in name or 'repairs' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"

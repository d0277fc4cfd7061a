"""`rotate_tenant` and `mstenant rotate`: an old password ends, no kill leaves a tenant behind, and no secret shows."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from typing import Any

import psutil
import psycopg
import pytest
from django.db import connections
from django.utils import timezone

from tenant_q import tenancy
from tenant_q.exceptions import ConfigurationError, ProvisioningError, UnknownTenant
from tenant_q.models import AuditRecord, TenantOperation, TenantRole
from tenant_q.provisioning import repair_tenant, roles, rotate_all, rotate_tenant
from tenant_q.provisioning.admin_connection import admin_session
from tenant_q.tenancy.repair_marks import mark_for_repair
from tests.conftest import wait_until
from tests.isolated.kills import killed_at_each
from tests.isolated.role_rows import give_roles, is_let_in, password, row
from tests.isolated.server import ADMIN, leaked
from tests.schemas import TENANTS

pytestmark = pytest.mark.seam


@pytest.fixture
def site(isolated_site) -> Any:
    """A site whose three tenants have roles."""
    give_roles(isolated_site, *TENANTS)
    return isolated_site


def test_a_rotation_refuses_the_old_password_and_takes_the_new(site):
    with site.session(row("acme_corp").role, password(site, "acme_corp")) as before:
        done = rotate_tenant("acme_corp", actor="olga")
        assert before.execute("SELECT 1").fetchone() == (1,)
    assert (done.schema, done.version, done.ended) == ("acme_corp", 2, 0)
    assert not is_let_in(site, "acme_corp", 1)
    assert is_let_in(site, "acme_corp")
    assert is_let_in(site, "globex_inc", 1)
    record = AuditRecord.objects.get(act="rotate")
    assert (record.actor, record.schema_name, record.target) == ("olga", "acme_corp", done.role)
    assert (record.before, record.after) == ({"version": 1}, {"version": 2, "ended_sessions": 0})


def test_now_ends_the_sessions_of_the_old_password(site):
    role = row("acme_corp").role
    with (
        site.session(role, password(site, "acme_corp")) as own,
        site.session(row("globex_inc").role, password(site, "globex_inc")) as other,
    ):
        assert rotate_tenant("acme_corp", actor="olga", now=True).ended == 1
        assert role not in site.sessions().values()
        with pytest.raises(psycopg.OperationalError):
            own.execute("SELECT 1")
        assert other.execute("SELECT 1").fetchone() == (1,)
    assert inherited(site) == 0  # what it took to end them is taken back


def test_a_rotation_killed_anywhere_is_continued_by_the_same_command(site):
    for place in killed_at_each(lambda: rotate_tenant("acme_corp", actor="olga")):
        found = row("acme_corp")
        assert found.version in (1, 2), place
        done = rotate_tenant("acme_corp", actor="olga")
        assert done.version == found.version + 1
        assert is_let_in(site, "acme_corp"), place
        assert not is_let_in(site, "acme_corp", found.version), place
        start_again("acme_corp")
    assert is_let_in(site, "acme_corp", 2)


def test_a_rotation_killed_anywhere_is_repaired_once_a_worker_is_refused(site):
    repaired = []
    for place in killed_at_each(lambda: rotate_tenant("acme_corp", actor="olga", now=True)):
        version = row("acme_corp").version
        if not is_let_in(site, "acme_corp"):
            assert is_let_in(site, "acme_corp", version + 1)
            assert mark_for_repair("acme_corp", version=version, problem="refused")
            assert repair_tenant("acme_corp")
            repaired.append(place)
        assert is_let_in(site, "acme_corp", version), place
        assert not TenantOperation.objects.exists()
        start_again("acme_corp")
    assert repaired  # between the new password and the commit of its version
    assert inherited(site) == 0


def inherited(site: Any) -> int:
    """The number of roles whose rights the admin role inherits."""
    query = "SELECT count(*) FROM pg_auth_members WHERE inherit_option AND member = %s::regrole"
    return int(site.sql(query, ADMIN)[0][0])


def start_again(schema: str) -> None:
    """Give the tenant version 1 again."""
    with tenancy.in_public():
        TenantRole.objects.filter(schema_name=schema).update(version=1, state="repair")
    assert repair_tenant(schema)


def test_two_rotations_of_one_tenant_at_once_follow_each_other(site):
    failures = at_once(4, lambda: rotate_tenant("acme_corp", actor="olga"))
    assert failures == []
    assert row("acme_corp").version == 5
    assert [is_let_in(site, "acme_corp", version) for version in range(1, 7)] == [False] * 4 + [True, False]


def test_a_worker_that_was_refused_waits_for_the_new_version(site, monkeypatch):
    """It reads the row with a lock for sharing while the password is changed, as the rotation has it locked."""
    seen: list[tuple[bool, int]] = []
    readers: list[threading.Thread] = []

    def change_and_be_read(admin: Any, role: str, **values: Any) -> None:
        change(admin, role, **values)
        readers.append(threading.Thread(target=read))
        readers[0].start()
        wait_until(
            lambda: site.sql("SELECT 1 FROM pg_stat_activity WHERE query ~ 'FOR SHARE' AND wait_event_type = 'Lock'")
        )

    def read() -> None:
        with psycopg.connect(site.owner_url) as worker:
            (version,) = worker.execute(
                "SELECT version FROM public.tenant_q_tenantrole WHERE schema_name = 'acme_corp' FOR SHARE"
            ).fetchone()
        seen.append((is_let_in_here(version), version))
        connections.close_all()

    def is_let_in_here(version: int) -> bool:
        return is_let_in(site, "acme_corp", version)

    change = roles.create_or_correct
    monkeypatch.setattr(roles, "create_or_correct", change_and_be_read)
    rotate_tenant("acme_corp", actor="olga")
    readers[0].join()
    assert seen == [(True, 2)]


def test_a_task_that_holds_its_role_locked_is_ended(site):
    role = row("acme_corp").role
    with site.session(role, password(site, "acme_corp")) as own:
        own.execute("BEGIN")
        own.execute("ALTER ROLE CURRENT_USER PASSWORD 'mine'")
        with admin_session() as admin:
            admin.execute("SET lock_timeout TO '100ms'")
            rotate_tenant("acme_corp", actor="olga")
        with pytest.raises(psycopg.OperationalError):
            own.execute("COMMIT")
    assert is_let_in(site, "acme_corp", 2)


# All tenants


def test_all_tenants_are_rotated(site):
    done = rotate_all(actor="olga")
    assert [one.schema for one in done.rotated] == list(TENANTS)
    assert (done.failed, done.continues) == ({}, None)
    assert all(is_let_in(site, schema, 2) and not is_let_in(site, schema, 1) for schema in TENANTS)
    assert not TenantOperation.objects.exists()


def test_a_rotation_of_all_that_is_killed_continues_where_it_was(isolated_site):
    """Whatever the place: each tenant is rotated, and none twice but the one whose rotation was interrupted."""
    schemas = TENANTS[:2]
    give_roles(isolated_site, *schemas)
    for place in killed_at_each(lambda: rotate_all(actor="olga"), every=3):
        left = [schema for schema in schemas if row(schema).version == 1]
        began = TenantOperation.objects.exists()
        done = rotate_all(actor="olga")
        assert [one.schema for one in done.rotated] == (left if began else list(schemas)), place
        assert bool(done.continues) == began
        assert all(is_let_in(isolated_site, schema) for schema in schemas), place
        assert not TenantOperation.objects.exists()
        for schema in schemas:
            start_again(schema)


def interrupted(**values: Any) -> None:
    """A rotation of all that was interrupted after the first tenant."""
    arguments = {"after": row("acme_corp").pk, "now": False, "failed": {}}
    operation = TenantOperation.objects.create(schema_name="*", kind="rotate", actor="olga", arguments=arguments)
    TenantOperation.objects.filter(pk=operation.pk).update(**values)


def test_an_interrupted_rotation_is_not_continued_after_a_day_or_with_now(site):
    interrupted()
    assert [one.schema for one in rotate_all(actor="olga").rotated] == list(TENANTS[1:])
    interrupted(started=timezone.now() - timedelta(days=2))
    assert [one.schema for one in rotate_all(actor="olga").rotated] == list(TENANTS)
    interrupted()
    assert [one.schema for one in rotate_all(actor="olga", now=True).rotated] == list(TENANTS)


def test_a_tenant_that_fails_does_not_stop_the_others(site):
    role = row("acme_corp").role
    with tenancy.in_public():
        TenantRole.objects.filter(schema_name="globex_inc").update(state="leaving")
    site.sql(f'ALTER ROLE "{role}" RENAME TO "{role}_away"')
    done = site.manage("mstenant", "rotate", "--all", check=False)
    assert done.returncode == 1
    assert "Rotated the passwords of 1 tenant." in done.stdout
    assert "acme_corp: The role" in done.stdout and "mstenant provision acme_corp --adopt" in done.stdout
    assert "2 tenants left with the old password: acme_corp, globex_inc" in done.stderr
    assert [row(schema).version for schema in TENANTS] == [1, 1, 2]
    site.sql(f'ALTER ROLE "{role}_away" RENAME TO "{role}"')


# Refusals


@pytest.mark.parametrize(
    ("state", "reason"),
    [("provisioning", "mstenant provision acme_corp"), ("leaving", "mstenant decommission acme_corp --yes")],
)
def test_a_role_that_is_not_in_use_is_not_rotated(isolated_site, state, reason):
    give_roles(isolated_site, "acme_corp", state=state)
    with pytest.raises(ProvisioningError, match=reason):
        rotate_tenant("acme_corp", actor="olga")
    assert row("acme_corp").version == 1


def test_a_tenant_without_a_role_is_named_with_the_way_out(isolated_site):
    with pytest.raises(ProvisioningError, match="mstenant provision acme_corp --adopt"):
        rotate_tenant("acme_corp", actor="olga")
    with pytest.raises(UnknownTenant):
        rotate_tenant("nobody", actor="olga")


@pytest.mark.parametrize("key", ["x" * 31, "ü" * 15, None])
def test_a_role_key_below_32_bytes_is_refused(site, key):
    with site.here(role_key=key), pytest.raises(ConfigurationError, match="32 bytes"):
        rotate_tenant("acme_corp", actor="olga")
    done = site.manage("mstenant", "rotate", "acme_corp", check=False, role_key=key)
    assert done.returncode != 0
    assert "32 bytes" in done.stderr
    assert not key or key not in done.stdout + done.stderr
    assert is_let_in(site, "acme_corp", 1)


# Secrets


def test_no_secret_shows(site, monkeypatch):
    """Not in the server's log with every statement, in no table, output, title of a process, or error."""
    mark, found = site.server.log_size(), dict(site.secrets())
    found |= {f"{schema} {number}": password(site, schema, number) for schema in TENANTS for number in (1, 2, 3, 4)}
    titles: list[str] = []
    watch = threading.Event()

    def look() -> None:
        while not watch.wait(0.01):
            titles.extend(title_of(process) for process in psutil.process_iter())

    watcher = threading.Thread(target=look)
    watcher.start()
    outputs = [site.manage("mstenant", "rotate", "--all", "--now", "--json")]
    outputs += [site.manage("mstenant", "rotate", "acme_corp", *more) for more in ([], ["--json"])]
    watch.set()
    watcher.join()
    assert json.loads(outputs[2].stdout) == {
        "schema": "acme_corp",
        "role": row("acme_corp").role,
        "version": 4,
        "ended": 0,
    }
    errors = errors_of_a_rotation(site)
    shown = "\n".join([site.server.log(mark), *titles, *errors, *(done.stdout + done.stderr for done in outputs)])
    assert leaked(shown, found) == []
    assert "SCRAM-SHA-256$" in shown  # all statements are in the log
    assert leaked(everything_in(site), found) == []


def title_of(process: psutil.Process) -> str:
    try:
        return f"{process.name()} {' '.join(process.cmdline())}"
    except psutil.Error:
        return ""


def errors_of_a_rotation(site: Any) -> list[str]:
    """The texts of the errors that a rotation raises when the admin's session is not as it must be."""
    texts = []
    lost = site.admin_url.replace("/tmp", "/nowhere/tmp")
    for url in (lost, site.owner_url, site.admin_url + "&nonsense=1", site.admin_url.replace("?", "?port=x&")):
        with site.here(admin_database=url), pytest.raises(ProvisioningError) as raised:
            rotate_tenant("acme_corp", actor="olga")
        error: BaseException | None = raised.value
        while error is not None:
            texts += [str(error), repr(error)]
            error = error.__cause__ or error.__context__
    return texts


def everything_in(site: Any) -> str:
    """The text of every row of the public schema."""
    tables = site.sql("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return "\n".join(str(site.sql(f'SELECT * FROM public."{table}"')) for (table,) in tables)


def at_once(count: int, act: Any) -> list[BaseException]:
    """Call a function in threads. Returns what they raised."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures

"""What may make a worker act as another role than that of the tenant it serves, or lose work for want of a session."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import pytest
from django.db import connections
from psycopg.conninfo import conninfo_to_dict

from tenant_q.brokers import get_broker
from tenant_q.exceptions import TaskFailed
from tenant_q.tenancy import acting, forget_tenants, in_schema, worker_state
from tenant_q.utils import QUtilities
from tests.conftest import wait_until
from tests.isolated.server import ADMIN, OWNER, leaked
from tests.isolated.test_worker_roles import BOTH, WAIT, adopt, run
from tests.tasks import let_go, note, notes

TASKS = "tests.isolated.worker_tasks"
A, B = "acme_corp", "globex_inc"


@pytest.fixture
def roles(isolated_site) -> dict[str, str]:
    return {schema: adopt(schema) for schema in (A, B)}


@pytest.fixture
def public_tasks(isolated_site, roles, settings, monkeypatch) -> Iterator[None]:
    """The public schema has tasks too, in this process and in clusters."""
    settings.SHARED_APPS = [*settings.SHARED_APPS, "django_q"]
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.isolated.settings_public")
    with isolated_site.session(OWNER) as owner:
        for table in ("django_q_schedule", "django_q_task"):
            owner.execute(f"CREATE TABLE public.{table} (LIKE acme_corp.{table} INCLUDING ALL)")
    forget_tenants()
    yield
    forget_tenants()


def result(id: str, schema: str, wait: int = WAIT) -> Any:
    return QUtilities.get_result(id, wait=wait, schema_name=schema, raise_failure=True)


# Calls of tenant_q in a task


@BOTH
def test_a_task_makes_any_call_for_its_tenant_and_remains_its_role(isolated_site, roles):
    key = isolated_site.cluster
    isolated_site.mscluster(workers=2)
    id = QUtilities.add_async_task("tests.tasks.add", 1, schema_name=A, q_options={"group": f"{key}-group"})
    assert result(id, A) == 1
    found = run(f"{TASKS}.tour", key, id)
    assert {name: one for name, one in found.items() if one != roles[A]} == {}
    wait_until(lambda: get_broker().counts().open == 0, what="what it has enqueued")


# Forks and threads


@BOTH
@pytest.mark.parametrize("how", ["use", "close"])
def test_a_process_that_a_task_forks_acts_as_its_tenant(isolated_site, roles, how):
    isolated_site.mscluster(workers=1)
    run(f"{TASKS}.who_in_fork", isolated_site.cluster, how)
    (found,) = notes(isolated_site.cluster)
    assert found["found"]["current"] == roles[A]
    if isolated_site.tenant_q["isolation"] == "login":
        assert leaked(found["shown"], isolated_site.secrets()) == []


@pytest.mark.parametrize("isolated_site", ["role"], indirect=True)
def test_a_thread_of_a_pool_acts_as_the_tenant_that_uses_it(isolated_site, roles):
    isolated_site.mscluster(workers=1)
    for schema in (A, B, A, B):
        assert run(f"{TASKS}.who_in_pool", schema, schema=schema)["current"] == roles[schema]
        assert run(f"{TASKS}.who_in_pool_unentered", schema=schema) == roles[schema]


@pytest.mark.parametrize("isolated_site", ["login"], indirect=True)
def test_a_thread_of_a_pool_works_only_for_the_tenant_whose_task_started_it(isolated_site, roles):
    isolated_site.mscluster(workers=1)
    for _ in range(2):
        assert run(f"{TASKS}.who_in_pool", A)["current"] == roles[A]
        assert run(f"{TASKS}.who_in_pool_unentered") == roles[A]
        for func, arguments in (("who_in_pool", [B]), ("who_in_pool_unentered", [])):
            with pytest.raises(TaskFailed, match="TenantNotAuthorized"):
                run(f"{TASKS}.{func}", *arguments, schema=B)


# The completer's thread


@BOTH
def test_results_are_saved_for_another_tenant_while_a_task_runs(isolated_site, roles, monkeypatch):
    """By the completer's thread if it is first, which calls the project's receivers then."""
    monkeypatch.setenv("TEST_APPS", json.dumps(["tests.isolated.receiving.Receiving"]))
    key = isolated_site.cluster
    ids = {
        schema: QUtilities.add_async_task(f"{TASKS}.who_after", key, schema_name=schema, group=key) for schema in roles
    }
    isolated_site.mscluster(workers=1)
    for schema, id in ids.items():
        assert result(id, schema) == {"main": roles[schema], "thread": roles[schema]}
    found = wait_until(lambda: len(notes(key)) == 2 and notes(key), what="the receivers")
    assert [one["current"] for one in found] == [roles[one["schema"]] for one in found]


def test_a_connection_of_the_completers_thread_does_not_log_in_as_the_tenant_that_is_served(monkeypatch):
    """Otherwise it would look for the cause of an outage by itself, over and over."""
    prepared: list[Any] = []
    values = {"mode": "login", "schema": A, "owner": {"default": {}}, "values": {"default": {"USER": "tenant"}}}
    for name, value in (values | {"prepare": prepared.append}).items():
        monkeypatch.setattr(worker_state.process, name, value)
    found = [Mock(alias="default", settings_dict={"USER": "own"}) for _ in range(2)]

    def make(connection: Any, *, is_ours: bool) -> None:
        worker_state.thread.is_ours = is_ours
        acting.prepare(connection)

    for connection, is_ours in zip(found, (True, False), strict=True):
        thread = threading.Thread(target=make, args=(connection,), kwargs={"is_ours": is_ours})
        vars(thread)[worker_state._SCHEMA] = A
        thread.start()
        thread.join()
    assert [one.settings_dict["USER"] for one in found] == ["own", "tenant"]
    assert prepared == [found[1]]


def test_what_a_receiver_leaves_in_a_tenants_session_reaches_no_task(isolated_site, roles, monkeypatch):
    monkeypatch.setenv("TEST_APPS", json.dumps(["tests.isolated.receiving.Receiving"]))
    isolated_site.mscluster(workers=1)
    for _ in range(3):
        run("tests.tasks_isolated.who", q_options={"group": isolated_site.cluster})
        assert run("tests.tasks_isolated.setting", "work_mem") == "4MB"


# Further databases, and the public schema


@BOTH
def test_a_task_with_more_databases_acts_as_its_tenant_in_all(isolated_site, roles):
    cluster = isolated_site.mscluster(workers=1, tenant_sessions=2)
    for schema in (A, B, A):
        for alias in ("default", "replica"):
            found = run(f"{TASKS}.who", alias, schema=schema, q_options={"databases": ["replica"]})
            assert found["current"] == roles[schema]
        assert run("tests.tasks_isolated.who", schema=schema)["current"] == roles[schema]
    assert "put back" not in cluster.log
    sessions = list(isolated_site.sessions().values())
    assert sum(role in roles.values() for role in sessions) <= 2, sessions


@pytest.mark.parametrize("isolated_site", ["login"], indirect=True)
def test_no_session_of_the_owner_is_left_where_a_tenant_cannot_be_served(isolated_site, roles, monkeypatch):
    """The next tenant's task would find it under the alias of the further database."""
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.isolated.settings_public")
    monkeypatch.setenv("TEST_REPLICA", "postgres")  # it has no tenants
    cluster = isolated_site.mscluster(workers=1)
    QUtilities.add_async_task(f"{TASKS}.who", schema_name=A, q_options={"databases": ["replica"]})
    wait_until(lambda: "waits for its tenant" in cluster.log, what="the task to be put off")
    found = run(f"{TASKS}.who_or_error", "replica", schema=B)
    assert "no password supplied" in str(found)


@BOTH
def test_tasks_of_public_and_of_tenants_take_turns(isolated_site, roles, public_tasks):
    isolated_site.mscluster(workers=1)
    is_login = isolated_site.tenant_q["isolation"] == "login"
    for _ in range(2):
        run(f"{TASKS}.nap", 0)  # it leaves nothing to scrub
        for alias in ("default", "replica"):
            assert run(f"{TASKS}.who", alias, schema="public")["current"] == OWNER, alias
        assert run(f"{TASKS}.who")["current"] == roles[A]
        if is_login:
            assert "no password supplied" in str(run(f"{TASKS}.who_or_error", "replica"))


# Options of connections


@BOTH
def test_a_service_a_password_file_and_a_role_of_the_project_itself(isolated_site, roles, monkeypatch, tmp_path):
    site, login = isolated_site, f"{isolated_site.database}_login"
    site.sql(f"CREATE ROLE {login} LOGIN PASSWORD 'by file only'; GRANT {OWNER} TO {login}")
    info = conninfo_to_dict(site.owner_url)
    (tmp_path / "services").write_text(f"[site]\nhost={info['host']}\ndbname={site.database}\nuser={login}\n")
    passwords = tmp_path / "passwords"
    passwords.write_text(f"*:*:*:{login}:by file only\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "tests.isolated.settings_public")
    options = {"service": "site", "passfile": str(passwords), "assume_role": OWNER, "options": "-c work_mem=5MB"}
    place = dict.fromkeys(("NAME", "USER", "PASSWORD", "HOST", "PORT"), "")
    monkeypatch.setenv("TEST_DEFAULT", json.dumps(place | {"OPTIONS": options}))
    try:
        site.mscluster(workers=1)
        for schema in (A, B, A):
            found = run("tests.tasks_isolated.who", schema=schema)
            is_login = site.tenant_q["isolation"] == "login"
            assert (found["session"], found["current"]) == (roles[schema] if is_login else login, roles[schema])
            assert run("tests.tasks_isolated.setting", "work_mem", schema=schema) == "5MB"
            if is_login:
                assert "'passfile'" not in run("tests.tasks_isolated.shown", schema=schema)  # in no settings
    finally:
        site.end()
        site.sql(f"DROP ROLE {login}")


# Sessions that are refused


def test_a_hook_waits_for_a_session_of_its_tenant(isolated_site, roles):
    key = isolated_site.cluster
    isolated_site.sql(f"ALTER ROLE {roles[A]} CONNECTION LIMIT 1")
    cluster = isolated_site.mscluster(workers=2)
    held = QUtilities.add_async_task(f"{TASKS}.hold_session", key, schema_name=A)
    wait_until(lambda: notes(key), what="the task that holds the session")
    options = {"hook": f"{TASKS}.note_hook", "group": f"{key}-hook"}
    run(f"{TASKS}.nap", 0, q_options=options)
    wait_until(lambda: "waits for its tenant" in cluster.log, what="the hook to be put off")
    assert notes(f"{key}-hook") == []
    note(f"{key}-go")
    result(held, A)
    found = wait_until(lambda: notes(f"{key}-hook"), what="the hook")
    assert [one["current"] for one in found] == [roles[A]]
    wait_until(lambda: get_broker().counts().open == 0, what="all to be acknowledged")


def test_a_hook_waits_until_its_tenants_role_is_repaired(isolated_site, roles):
    key = isolated_site.cluster
    cluster = isolated_site.mscluster(workers=1, tenant_cache_seconds=0)
    options = {"hook": f"{TASKS}.note_hook", "group": f"{key}-hook"}
    id = QUtilities.add_async_task(f"{TASKS}.hold_session", key, schema_name=A, q_options=options)
    wait_until(lambda: notes(key), what="the task")
    set_state(isolated_site, "provisioning")
    note(f"{key}-go")
    result(id, A)
    wait_until(lambda: "waits for its tenant" in cluster.log, what="the hook to be put off")
    set_state(isolated_site, "active")
    assert wait_until(lambda: notes(f"{key}-hook"), what="the hook")


def set_state(site, state: str) -> None:
    site.sql("UPDATE public.tenant_q_tenantrole SET state = %s WHERE schema_name = %s", state, A)


def test_a_setting_that_a_task_gives_its_role_reaches_no_later_session_of_its_slice(isolated_site, roles):
    with in_schema(A):
        QUtilities.add_async_task(f"{TASKS}.change_and_close", "work_mem", "77MB")
        id = QUtilities.add_async_task("tests.tasks_isolated.setting", "work_mem")
    isolated_site.mscluster(workers=1)
    assert result(id, A) == "4MB"


@pytest.mark.parametrize("act", ["NOLOGIN", "PASSWORD 'another'", "CONNECTION LIMIT 0", "dropped", "no CONNECT"])
def test_no_task_is_lost_or_failed_by_a_refused_session(isolated_site, roles, act):
    key, role, database = isolated_site.cluster, roles[A], isolated_site.database
    isolated_site.mscluster(workers=2)
    run("tests.tasks_isolated.who")
    isolated_site.sql("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = %s", role)
    if act == "no CONNECT":
        isolated_site.sql(f"REVOKE CONNECT ON DATABASE {database} FROM {role}, PUBLIC")
        isolated_site.sql(f"GRANT CONNECT ON DATABASE {database} TO {ADMIN}")
    elif act == "dropped":
        isolated_site.sql(f"REASSIGN OWNED BY {role} TO {OWNER}; DROP OWNED BY {role}; DROP ROLE {role}")
    else:
        isolated_site.sql(f"ALTER ROLE {role} {act}")
    with in_schema(A):
        ids = [
            QUtilities.add_async_task(f"{TASKS}.note_run", key, number, q_options={"max_attempts": 1})
            for number in range(10)
        ]
    assert run("tests.tasks_isolated.who", schema=B)["current"] == roles[B]
    if act == "CONNECTION LIMIT 0":  # the limit is the operator's
        isolated_site.sql(f"ALTER ROLE {role} CONNECTION LIMIT -1")
    if act in ("dropped", "no CONNECT"):
        adopt(A)
    assert [result(id, A) for id in ids] == list(range(10))
    wait_until(lambda: get_broker().counts().open == 0, what="all to be acknowledged")


def test_no_task_fails_because_postgres_restarts_before_its_session_is_opened(isolated_site, roles, isolated_server):
    key, once = isolated_site.cluster, {"max_attempts": 1}
    with in_schema(A):
        held = QUtilities.add_async_task("tests.tasks.hold", key)
        ids = [
            QUtilities.add_async_task(f"{TASKS}.note_run", f"{key}-run", number, q_options=once) for number in range(20)
        ]
    cluster = isolated_site.mscluster(workers=1)
    wait_until(lambda: notes(key), what="the first task of the slice")
    isolated_server.kill_postgres()
    connections.close_all()
    let_go(key)
    wait_until(lambda: "waits, nothing is lost" in cluster.log, what="the outage to be logged")
    isolated_server.start_postgres()
    assert result(held, A)
    assert [result(id, A) for id in ids] == list(range(20))
    assert len(notes(f"{key}-run")) == 20

"""Code that is restricted to one tenant makes no call for another one."""

from __future__ import annotations

import asyncio
import inspect
from datetime import timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.core import signing
from django.core.management import CommandError, call_command
from django.db import transaction
from django_q.models import Schedule
from django_q.signals import pre_enqueue
from django_q.tasks import async_task

from tenant_q import policies, tenancy
from tenant_q.authorization import authorize, restrict_to, tenant_token
from tenant_q.custom import AsyncTask, Chain, Iter
from tenant_q.exceptions import InEventLoop, TenantNotAuthorized, UnknownTenant, WrongArgument
from tenant_q.models import TenantPolicy
from tenant_q.provisioning import decommission_tenant, provision_tenant, rotate_tenant
from tenant_q.tenancy import in_public, in_schema
from tenant_q.utils import QUtilities
from tenant_q.workflows import Run, control
from tests import schemas, tasks_declared
from tests.flows import workflows
from tests.integration.conftest import sql, work

pytestmark = pytest.mark.seam

A, B = "acme_corp", "globex_inc"
FUNC = "tests.tasks.add"
# Arguments with which each method of `QUtilities` would do its work.
ARGUMENTS: dict[str, Any] = {
    "func": FUNC,
    "args_iter": [(1, 2)],
    "chain": [(FUNC, (1, 2))],
    "name": "a schedule",
    "task_id": "an id",
    "group_id": "a group",
    "path": "tests.flows.workflows.line",
    "input": {"number": 1},
    "id": "an id",
}
METHODS = [
    name
    for name, method in inspect.getmembers(QUtilities, inspect.isfunction)
    if "schema_name" in inspect.signature(method).parameters
]
SYNCHRONOUS = [name for name in METHODS if not inspect.iscoroutinefunction(getattr(QUtilities, name))]


@pytest.fixture(autouse=True)
def in_a(tenants):
    with in_schema(A):
        yield


def call(name: str, **more: Any) -> Any:
    method = getattr(QUtilities, name)
    known = inspect.signature(method).parameters
    found = method(**{key: value for key, value in ARGUMENTS.items() if key in known}, **more)
    return asyncio.run(found) if inspect.iscoroutine(found) else found


# Calls


def test_every_method_is_tried():
    assert len(METHODS) >= 20


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_refused_for_another_tenant_and_for_public(name):
    with restrict_to(A):
        for schema in (B, tenancy.public_schema()):
            with pytest.raises(TenantNotAuthorized, match=f"for schema '{schema}' .* restricted to tenant '{A}'"):
                call(name, schema_name=schema)


@pytest.mark.parametrize("name", SYNCHRONOUS)
def test_a_method_is_refused_while_another_tenant_is_current(name):
    tenancy.tenant_connection().set_tenant(tenancy.get_tenant(B))
    with restrict_to(A), pytest.raises(TenantNotAuthorized):
        call(name)


def test_own_calls_are_as_before(worker):
    with restrict_to(A) as schema:
        ids = [
            QUtilities.add_async_task(FUNC, 1, 2),
            QUtilities.add_async_task(FUNC, 1, 2, schema_name=schema),
            QUtilities.add_async_task(FUNC, 1, 2, q_options={"on_commit": True}),
            tasks_declared.plain.using(schema_name=A).enqueue(1, 2),
            asyncio.run(QUtilities.aadd_async_task(FUNC, 1, 2, schema_name=A)),
        ]
        QUtilities.ensure_schedule("own", FUNC, 1, 2, schedule_type=Schedule.DAILY)
        assert QUtilities.add_async_task(FUNC, 1, 2, sync=True)
        assert QUtilities.get_queue_size() == len(ids)
        assert tenancy.config().display_name == ""
    work(worker)
    with restrict_to(A):
        assert [QUtilities.get_result(id, schema_name=A) for id in ids] == [3] * len(ids)


def run_of_b() -> Run:
    with in_schema(B):
        return workflows.line.start({"number": 1})


CALLS = {
    "in_schema": lambda: in_schema(B).__enter__(),
    "in_schema of public": lambda: in_schema(tenancy.public_schema()).__enter__(),
    "in_schema as a decorator": lambda: in_schema(B)(lambda: None)(),
    "in_verified_schema": lambda: tenancy.in_verified_schema(B).__enter__(),
    "enter": lambda: tenancy.enter(B),
    "config": lambda: tenancy.config(B),
    "AsyncTask": lambda: AsyncTask(FUNC, 1, 2, schema_name=B).run(),
    "Chain": lambda: Chain([(FUNC, (1, 2))], schema_name=B).run(),
    "Iter": lambda: Iter(FUNC, [(1, 2)], schema_name=B).run(),
    "a declared task": lambda: tasks_declared.plain.using(schema_name=B).enqueue(1),
    "a declared task in sync mode": lambda: tasks_declared.plain.using(schema_name=B, sync=True).enqueue(1),
    "a coroutine of a declared task": lambda: asyncio.run(tasks_declared.plain.using(schema_name=B).aenqueue(1)),
    "start": lambda: workflows.line.start({"number": 1}, schema_name=B),
    "run_here": lambda: workflows.line.run_here({"number": 1}, schema_name=B),
    "runs": lambda: workflows.line.runs(schema_name=B),
    "schedule": lambda: workflows.line.schedule(input={"number": 1}, schema_name=B, schedule_type=Schedule.DAILY),
    "Run.get": lambda: Run.get("an id", schema_name=B),
    "Run.of": lambda: Run.of(schema_name=B),
    "policies.change": lambda: policies.change(B, actor="x", act="pause", paused=True),
    "policies.configure": lambda: policies.configure(B, actor="x", display_name="B"),
    "policies.policy_of": lambda: policies.policy_of(B),
    "provision_tenant": lambda: provision_tenant(B, adopt=True, actor="x"),
    "decommission_tenant": lambda: decommission_tenant(B, actor="x"),
    "rotate_tenant": lambda: rotate_tenant(B, actor="x"),
    "tenant_token": lambda: tenant_token(B),
    "restrict_to": lambda: restrict_to(B).__enter__(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_that_names_another_tenant_is_refused(call):
    with restrict_to(A):
        with pytest.raises(TenantNotAuthorized):
            call()
        assert tenancy.current_schema() == A, "nothing is switched"
    assert not TenantPolicy.objects.filter(paused=True).exists()


@pytest.mark.parametrize(
    "act",
    [
        lambda run: run.refresh(),
        lambda run: run.steps,
        lambda run: dict(run.results),
        lambda run: run.context,
        lambda run: run.cancel(),
        lambda run: run.preview_resume(),
        lambda run: run.resume(),
        lambda run: run.skip("second"),
        lambda run: control.delete(run.schema, [run.id]),
    ],
    ids=["refresh", "steps", "results", "context", "cancel", "preview_resume", "resume", "skip", "delete"],
)
def test_a_run_of_another_tenant_is_out_of_reach(no_runs, act):
    run = run_of_b()
    with restrict_to(A), pytest.raises(TenantNotAuthorized):
        act(run)


def test_nothing_of_public_is_enqueued_in_public_and_its_models_are_read():
    with restrict_to(A):
        assert tenancy.tenant_model().objects.filter(schema_name=B).exists()
        with pytest.raises(TenantNotAuthorized), in_public():
            pass
        tenancy.tenant_connection().set_schema_to_public()
        for act in (lambda: QUtilities.add_async_task(FUNC, 1, 2), lambda: async_task(FUNC, 1, 2)):
            with pytest.raises(TenantNotAuthorized):
                act()


def test_a_receiver_does_not_redirect_a_task_to_another_tenant():
    def redirect(task: dict[str, Any], **_: Any) -> None:
        task["schema_name"] = B

    pre_enqueue.connect(redirect)
    try:
        QUtilities.add_async_task(FUNC, 1, 2)
        with restrict_to(A):
            for act in (lambda: QUtilities.add_async_task(FUNC, 1, 2), lambda: async_task(FUNC, 1, 2)):
                with pytest.raises(TenantNotAuthorized):
                    act()
    finally:
        pre_enqueue.disconnect(redirect)
    assert QUtilities.get_queue_size(schema_name=B) == 1


def test_a_command_changes_no_other_tenant():
    with restrict_to(A), pytest.raises(CommandError, match=f"restricted to tenant '{A}'"):
        call_command("mstenant", "pause", B)


# Blocks


def test_the_restriction_ends_with_its_block():
    with restrict_to(A), pytest.raises(ZeroDivisionError), restrict_to(A):
        raise ZeroDivisionError
    assert tenancy.restriction() is None
    with in_schema(B):
        assert tenancy.current_schema() == B


def test_what_a_task_leaves_behind_ends_with_the_outer_block():
    with tenancy.restricted(A):
        restrict_to(A).__enter__()
    assert tenancy.restriction() is None


def test_an_object_is_for_one_block_at_a_time():
    block = restrict_to(A)
    with block:
        with pytest.raises(WrongArgument, match="one block at a time"), block:
            pass
        assert tenancy.restriction() == A
    with block:
        assert tenancy.restriction() == A
    assert tenancy.restriction() is None


def test_it_decorates_functions_and_coroutine_functions():
    @restrict_to(A)
    def plain(again: int) -> str | None:
        return plain(again - 1) if again else tenancy.restriction()

    @restrict_to(A)
    async def coroutine() -> str | None:
        await asyncio.sleep(0)
        return tenancy.restriction()

    assert plain(2) == asyncio.run(coroutine()) == A
    assert tenancy.restriction() is None


def test_it_does_not_decorate_generators_which_it_would_not_restrict():
    def generator():
        yield

    async def asynchronous():
        yield

    for function in (generator, asynchronous):
        with pytest.raises(WrongArgument, match="a generator's code runs where it is iterated"):
            restrict_to(A)(function)


@pytest.mark.parametrize("schema", [None, "", 7])
def test_a_schema_is_a_text(schema):
    with pytest.raises(WrongArgument):
        restrict_to(schema)


# Coroutines


def test_coroutines_side_by_side_have_restrictions_of_their_own():
    async def seen(schema: str) -> set[str | None]:
        found = set()
        with restrict_to(schema):
            for _ in range(3):
                await asyncio.sleep(0)
                found.add(tenancy.restriction())
                found.add(await sync_to_async(tenancy.restriction)())
                found.add(await asyncio.create_task(within()))
        return found

    async def within() -> str | None:
        return tenancy.restriction()

    async def both() -> Any:
        return await asyncio.gather(seen(A), seen(B), within())

    assert asyncio.run(both()) == [{A}, {B}, None]


def test_a_coroutine_enters_no_other_tenant():
    async def enter(schema: str) -> str:
        with restrict_to(A):
            async with in_schema(schema):
                return "entered"

    assert async_to_sync(enter)(A) == "entered"
    for schema in (B, tenancy.public_schema()):
        with pytest.raises(TenantNotAuthorized):
            async_to_sync(enter)(schema)


def test_a_coroutine_awaits_no_call_for_another_tenant():
    made = []

    async def call() -> None:
        with restrict_to(A):
            await tenancy.call_for_coroutine("call()", lambda *address: made.append(address), B)

    with pytest.raises(TenantNotAuthorized):
        async_to_sync(call)()
    assert not made


def test_a_coroutine_that_has_entered_another_tenant_before_is_refused():
    async def enqueue() -> None:
        async with in_schema(B):
            with restrict_to(A):
                await QUtilities.aadd_async_task(FUNC, 1, 2)

    with pytest.raises(TenantNotAuthorized):
        async_to_sync(enqueue)()


def test_a_coroutine_reads_no_configuration_of_the_tenant_that_it_has_entered_before(monkeypatch):
    async def read() -> None:
        async with in_schema(B):
            assert tenancy.config().display_name == ""
            with restrict_to(A):
                tenancy.config()

    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    tenancy.config(B)
    with pytest.raises(TenantNotAuthorized):
        async_to_sync(read)()


# What tenant_q does for itself


def test_a_commit_pushes_what_was_enqueued_before_the_block():
    """A push enters no schema."""
    with transaction.atomic():
        QUtilities.add_async_task(FUNC, 1, 2, schema_name=B, q_options={"on_commit": True})
        restriction = restrict_to(A)
        transaction.on_commit(restriction.__enter__)
        QUtilities.add_async_task(FUNC, 1, 2, schema_name=B, q_options={"on_commit": True})
    restriction.__exit__(None, None, None)
    assert QUtilities.get_queue_size(schema_name=B) == 2


def test_without_a_restriction_nothing_is_refused():
    for act in (CALLS["config"], CALLS["policies.policy_of"], CALLS["a declared task"], CALLS["Chain"]):
        act()


# Tokens


def test_a_token_authorizes_its_tenant():
    with authorize(tenant_token(A)) as schema:
        assert schema == tenancy.restriction() == A
        with pytest.raises(TenantNotAuthorized):
            in_schema(B).__enter__()


def test_a_token_is_refused_that_is_missing_changed_foreign_or_too_old():
    token = tenant_token(A, salt="download")
    assert repr(authorize(token, salt="download", max_age=None)) == f"restrict_to('{A}')"
    for wrong in (None, "", "x", token[:-1], "x" + token, signing.dumps([B, "1"])):
        with pytest.raises(TenantNotAuthorized):
            authorize(wrong, salt="download")
    with pytest.raises(TenantNotAuthorized, match="another SECRET_KEY or salt"):
        authorize(token)
    for age in (-1, timedelta(seconds=-1)):
        with pytest.raises(TenantNotAuthorized, match="expired"):
            authorize(token, salt="download", max_age=age)


def test_a_token_of_another_key_is_refused_until_it_is_a_fallback(settings):
    token, before = tenant_token(A), settings.SECRET_KEY
    settings.SECRET_KEY = "another"
    with pytest.raises(TenantNotAuthorized):
        authorize(token)
    settings.SECRET_KEY_FALLBACKS = [before]
    authorize(token)


def test_a_token_is_not_valid_for_the_next_tenant_of_the_name(spare):
    """Also while the process has the first one in its cache."""
    token = tenant_token(spare)
    tenancy.get_tenant(spare)
    table, key = tenancy.tenant_table()
    sql(f"UPDATE {table} SET {key} = 900001 WHERE schema_name = '{spare}'")
    with pytest.raises(TenantNotAuthorized, match="is gone"):
        authorize(token)
    authorize(tenant_token(spare))
    schemas.drop_tenant(spare)
    with pytest.raises(TenantNotAuthorized, match="is gone"):
        authorize(token)


def test_a_token_is_made_for_tenants_only():
    with pytest.raises(UnknownTenant):
        tenant_token("nobody")
    for wrong in (tenancy.public_schema(), None, ""):
        with pytest.raises(WrongArgument):
            tenant_token(wrong)


def test_a_coroutine_awaits_the_verification_of_a_token():
    token = tenant_token(A)

    async def use() -> str | None:
        with pytest.raises(InEventLoop):
            authorize(token)
        with await sync_to_async(authorize)(token):
            return tenancy.restriction()

    assert async_to_sync(use)() == A

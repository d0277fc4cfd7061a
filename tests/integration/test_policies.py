"""Policies in the public schema: changed in one transaction, audited, and in force on what is queued already."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any

import pytest
import redis
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.utils import timezone
from django_q.conf import Conf
from django_q.models import Task
from redis.backoff import NoBackoff
from redis.retry import Retry

from tenant_q import audit, brokers, policies, tenancy
from tenant_q.brokers import get_broker, site_brokers
from tenant_q.brokers.protocol import Message, Policy, Settled
from tenant_q.brokers.redis import RedisBroker
from tenant_q.exceptions import BrokerError, ConfigurationError, NoTenant, QueueFull, TenantQError, UnknownTenant
from tenant_q.lifecycle import prune_results, save_results
from tenant_q.models import AuditRecord, TenantPolicy
from tenant_q.package.build import build
from tenant_q.package.outcome import Outcome
from tenant_q.policies import change
from tenant_q.tenancy import in_schema
from tenant_q.utils import QUtilities
from tests import schemas
from tests.conftest import wait_until
from tests.integration.conftest import as_olga, in_thread, redis_key, sql, waits_for_a_lock

A, B = "acme_corp", "globex_inc"
DEFAULTS = dict.fromkeys(policies.FIELDS) | {"weight": 1.0, "paused": False}


@pytest.fixture(autouse=True)
def clean(tenants, monkeypatch) -> Iterator[None]:
    """No policies, no records, and an operator of the test's own."""
    yield from as_olga(monkeypatch, forget)


def forget() -> None:
    sql("TRUNCATE tenant_q_tenantpolicy, tenant_q_auditrecord")


def put(*ids: str, schema: str = A, **options: Any) -> int:
    messages = [Message(id=id, schema=schema, func="f", payload=f"payload of {id}") for id in ids]
    return get_broker().enqueue(messages, **options)


def fetched(worker: str = "w1", limit: int = 64) -> list[str]:
    return [lease.id for lease in get_broker().fetch(worker, limit=limit).leases]


def pause(schema: str = A) -> TenantPolicy:
    return change(schema, actor="olga", act="pause", paused=True)


def records() -> list[dict[str, Any]]:
    return list(AuditRecord.objects.values("actor", "act", "schema_name", "target", "before", "after"))


def command(name: str, *arguments: str, **options: Any) -> str:
    out = StringIO()
    call_command(name, *arguments, stdout=out, **options)
    return out.getvalue().rstrip("\n")


def mstenant(*arguments: str, **options: Any) -> str:
    return command("mstenant", *arguments, **options)


@contextmanager
def in_schema_alone(schema: str) -> Iterator[None]:
    """In a schema, with nothing of the public one on the search path."""
    with in_schema(schema):
        connection.set_tenant(connection.tenant, include_public=False)
        yield


@pytest.fixture
def away(monkeypatch) -> Iterator[None]:
    """The broker is away: nobody listens where it should be."""
    client = redis.Redis(port=1, retry=Retry(NoBackoff(), 0))
    with monkeypatch.context() as patch:
        patch.setitem(brokers._made, get_broker().cluster, RedisBroker(get_broker().cluster, client))
        yield


# Rows and records


def test_the_models_have_their_migration():
    call_command("makemigrations", "tenant_q", check=True, dry_run=True, verbosity=0)


def test_a_tenant_without_a_policy_has_the_defaults():
    assert policies.values_of(policies.policy_of(A)) == DEFAULTS
    assert policies.policies() == []
    assert [policy.schema_name for policy in policies.policies(every_tenant=True)] == list(schemas.TENANTS)
    assert not TenantPolicy.objects.exists()


def test_a_change_is_saved_recorded_and_in_force():
    begin = timezone.now()
    with in_schema_alone(B):
        found = change(A, actor="olga", act="limit", weight=2, max_running=3, max_queued=4, max_results=5)
        assert connection.schema_name == B
    for read in (lambda: policies.policy_of(A), lambda: policies.policies()[0]):
        with in_schema_alone(B):
            assert policies.values_of(read()) == policies.values_of(found)
    with in_schema_alone(B):
        policies.put_in_force_everywhere()
    after = DEFAULTS | {"weight": 2.0, "max_running": 3, "max_queued": 4, "max_results": 5}
    assert policies.values_of(found) == after
    assert TenantPolicy.objects.get().changed == found.changed > begin
    assert get_broker().policies() == {A: Policy(2.0, 3, 4, paused=False)}
    expected = {"actor": "olga", "act": "limit", "schema_name": A, "target": "", "before": DEFAULTS, "after": after}
    assert records() == [expected]
    assert AuditRecord.objects.get().at > begin

    change(A, actor="otto", act="limit", max_running=None)
    assert get_broker().policies() == {A: Policy(2.0, None, 4, paused=False)}
    newest, oldest = records()
    assert (newest["actor"], newest["before"], newest["after"]) == ("otto", after, after | {"max_running": None})
    assert oldest == expected, "newest first"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"weight": 0}, "weight of acme_corp cannot be 0: Ensure this value is from 0.001 to 1000."),
        ({"weight": float("nan")}, "weight of acme_corp cannot be nan: Ensure this value is from 0.001 to 1000."),
        ({"weight": float("inf")}, "weight of acme_corp cannot be inf: "),
        ({"weight": "heavy"}, "weight of acme_corp cannot be 'heavy': “heavy” value must be a float."),
        ({"max_running": 0}, "max_running of acme_corp cannot be 0: Ensure this value is greater than or equal to 1."),
        ({"max_queued": -5}, "max_queued of acme_corp cannot be -5: "),
        ({"max_results": 2**31}, "max_results of acme_corp cannot be 2147483648: "),
        ({"paused": "x"}, "paused of acme_corp cannot be 'x': "),
        ({"wieght": 1}, "A tenant's policy has no 'wieght': did you mean 'weight'?"),
        ({"zzz": 1}, "A tenant's policy has no 'zzz': known are failure_days, max_failures, "),
    ],
)
def test_a_value_that_cannot_be_changes_nothing(values, message):
    with pytest.raises(ConfigurationError) as error:
        change(A, actor="olga", act="limit", **values)
    assert str(error.value).startswith(message)
    assert not TenantPolicy.objects.exists()
    assert records() == []
    assert get_broker().policies() == {}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("weight", "0"),
        ("weight", "-1"),
        ("weight", "'NaN'"),
        ("weight", "'Infinity'"),
        ("max_running", "0"),
        ("max_queued", "0"),
        ("max_results", "0"),
    ],
)
def test_the_database_refuses_what_would_break_the_broker(column, value):
    pause()
    with pytest.raises(IntegrityError, match=f"tenant_q_{column}"):
        sql(f"UPDATE tenant_q_tenantpolicy SET {column} = {value}")


def test_a_form_refuses_a_name_that_no_schema_can_have():
    with pytest.raises(ValidationError, match="only letters"):
        TenantPolicy(schema_name="acme-corp").full_clean()


@pytest.mark.parametrize(
    ("schema", "kind", "message"),
    [
        ("acme_crop", UnknownTenant, "No tenant has the schema name 'acme_crop'"),
        ("", UnknownTenant, "No tenant can have this schema name: .* it is empty"),
        ("public", NoTenant, "'public' is current and has no django_q tables"),
    ],
)
def test_a_tenant_that_is_not_there(schema, kind, message):
    for act in (lambda: pause(schema), lambda: policies.policy_of(schema)):
        with pytest.raises(kind, match=message):
            act()
    assert not TenantPolicy.objects.exists()


def test_the_policy_of_a_tenant_that_was_dropped_goes_with_it():
    schemas.clone_tenants(["newcomer"])
    try:
        pause("newcomer")
    finally:
        schemas.drop_tenant("newcomer")
        tenancy.forget_tenants()
    assert not TenantPolicy.objects.filter(schema_name="newcomer").exists()
    assert "newcomer" not in get_broker().policies()


def none(tenants: Any) -> Any:
    return tenants.none()


def test_a_tenant_that_is_not_served_yet_can_be_paused(settings):
    settings.TENANT_Q = {"ready_tenants": f"{__name__}.none"}
    tenancy.forget_tenants()
    assert pause().paused


def test_a_record_is_never_changed():
    made = audit.record("olga", "look", target="everything")
    made.actor = "otto"
    with pytest.raises(TenantQError, match="cannot be changed"):
        made.save()
    with pytest.raises(TenantQError, match="cannot be changed"):
        AuditRecord.objects.get().save()
    assert [(one["actor"], one["schema_name"]) for one in records()] == [("olga", None)]


def test_the_operator_is_known_behind_sudo_and_without_a_name(monkeypatch):
    assert audit.operator() == "olga"
    monkeypatch.setenv("SUDO_USER", "otto")
    assert audit.operator() == "otto as olga"

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.delenv("SUDO_USER")
    monkeypatch.setattr("getpass.getuser", nobody)
    monkeypatch.setattr("os.getuid", lambda: 4711)
    assert audit.operator() == "uid 4711"


# In force on a backlog


@pytest.mark.seam
def test_nothing_of_a_paused_tenant_is_started_until_it_is_resumed():
    put("a1", "a2")
    put("b1", schema=B)
    pause()
    assert fetched() == ["b1"]
    assert fetched("w2") == []
    change(A, actor="olga", act="resume", paused=False)
    assert fetched("w2") == ["a1"], "one of unknown length runs alone"


def test_a_cap_counts_the_workers_that_are_busy():
    put("a1", "a2", "a3")
    change(A, actor="olga", act="limit", max_running=1)
    assert fetched("w1", limit=1) == ["a1"]
    assert fetched("w2", limit=1) == []
    change(A, actor="olga", act="limit", max_running=2)
    assert fetched("w2", limit=1) == ["a2"]
    assert fetched("w3", limit=1) == []


def test_a_weight_shares_worker_time():
    broker = get_broker()
    for schema in (A, B):
        put(*(f"{schema}{n}" for n in range(80)), schema=schema)
    change(A, actor="olga", act="limit", weight=3)
    run: Counter[str] = Counter()
    for _ in range(80):
        (lease,) = broker.fetch("w1", limit=1).leases
        broker.acknowledge("w1", [Settled(lease, 0.01)])
        run[lease.schema] += 1
    assert abs(run[A] - 60) <= 2, run


def test_only_so_many_may_wait():
    put("a1", "a2")
    change(A, actor="olga", act="limit", max_queued=3)
    assert put("a3", limited=True) == 1
    with pytest.raises(QueueFull, match=r"its max_queued is 3; .*mstenant limit acme_corp --max-queued N"):
        put("a4", limited=True)
    assert put("b1", "b2", "b3", "b4", schema=B, limited=True) == 4
    change(A, actor="olga", act="limit", max_queued=None)
    assert put("a4", limited=True) == 1


@pytest.mark.seam
def test_a_tenant_keeps_as_many_successes_as_its_policy_says(settings):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 4}
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    for schema in (A, B):
        moments = [begin + timedelta(seconds=n) for n in range(6)]
        built = [(build("tests.tasks.add", (), {}, schema=schema), moment) for moment in moments]
        save_results.save([Outcome(package, True, "done", moment, moment, 1.0) for package, moment in built])
    change(A, actor="olga", act="limit", max_results=2)
    for schema in (A, B):
        with in_schema_alone(B):
            prune_results.prune(schema)
            assert connection.schema_name == B
    with in_schema(B):
        assert Task.objects.count() == 4, "without one of its own, as many as save_limit says"
    with in_schema(A):
        assert Task.objects.count() == 2
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"save_limit": 0}
    change(A, actor="olga", act="limit", max_results=1)
    prune_results.prune(A)
    with in_schema(A):
        assert Task.objects.count() == 1


def test_every_cluster_of_the_site_has_the_policy(settings, other_cluster):
    names = {get_broker().cluster, *map(other_cluster, ("far_one", "far_two", "far_three"))}
    alternatives = {"far_one": {"timeout": 5}, "far_two": {}}
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"cluster_name": "far_three", "ALT_CLUSTERS": alternatives}
    assert {broker.cluster for broker in site_brokers()} == names
    pause()
    for name in names:
        assert get_broker(name).policies() == {A: Policy(paused=True)}


# Transactions


def test_a_change_is_in_force_when_the_callers_transaction_commits():
    with transaction.atomic():
        pause()
        assert get_broker().policies() == {}
    assert get_broker().policies() == {A: Policy(paused=True)}


def test_a_change_that_is_rolled_back_leaves_nothing():
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        pause()
        raise ZeroDivisionError
    assert get_broker().policies() == {}
    assert not TenantPolicy.objects.exists()
    assert records() == []


@pytest.mark.parametrize("is_known", [False, True])
def test_two_changes_at_once_are_both_there(is_known):
    if is_known:
        change(A, actor="olga", act="limit", max_queued=4)
    with transaction.atomic():
        change(A, actor="olga", act="limit", weight=2)
        other = in_thread(lambda: change(A, actor="otto", act="limit", max_running=3))
        wait_until(lambda: waits_for_a_lock() or not other.is_alive(), what="the second change to wait")
    other.join(30)
    assert get_broker().policies() == {A: Policy(2.0, 3, 4 if is_known else None)}
    (newest, older) = records()[:2]
    assert (newest["actor"], newest["before"]) == ("otto", older["after"])


def test_what_the_orm_saves_and_deletes_is_in_force_after_its_commit():
    with transaction.atomic():
        policy = TenantPolicy.objects.create(schema_name=A, paused=True)
        TenantPolicy.objects.create(schema_name=B, weight=2)
        assert get_broker().policies() == {}
    assert get_broker().policies() == {A: Policy(paused=True), B: Policy(2.0)}
    policy.paused = False
    policy.max_running = 1
    policy.save()
    assert get_broker().policies()[A] == Policy(max_running=1)
    policy.delete()
    assert get_broker().policies() == {B: Policy(2.0)}


def test_with_the_broker_away_a_change_is_saved_and_told(away, scheduler):
    with pytest.raises(BrokerError, match=r"^The change is saved and applies when the broker is"):
        pause()
    assert TenantPolicy.objects.get().paused
    assert [one["act"] for one in records()] == ["pause"]
    with pytest.raises(CommandError, match=r"^The change is saved"):
        mstenant("limit", A, "--weight", "2")
    with pytest.raises(BrokerError):
        scheduler.tick()
    brokers.forget_brokers()  # it is back
    assert get_broker().policies() == {}
    scheduler.tick()
    assert get_broker().policies() == {A: Policy(2.0, paused=True)}, "at once, not half a minute later"


def test_with_the_broker_away_what_else_is_to_be_done_on_commit_is_done(away, caplog):
    done: list[str] = []
    with transaction.atomic():
        TenantPolicy.objects.create(schema_name=A, paused=True)
        transaction.on_commit(lambda: done.append("mail"))
    assert done == ["mail"]
    assert "put_in_force_everywhere" in caplog.text


def test_what_is_put_in_force_last_is_what_was_saved_last():
    """One process read the policies before a change, and is slow to hand them over."""
    reading, going_on = threading.Event(), threading.Event()

    class Slow(RedisBroker):
        def set_policies(self, policies: Any, *, complete: bool = False) -> None:
            reading.set()
            assert going_on.wait(30)
            super().set_policies(policies, complete=complete)

    slow = in_thread(lambda: policies.put_in_force(Slow(get_broker().cluster)))
    assert reading.wait(30)
    changing = in_thread(pause)
    try:
        wait_until(lambda: waits_for_a_lock() or not changing.is_alive(), what="the change to wait for the slow one")
    finally:
        going_on.set()
        slow.join(30)
        changing.join(30)
    assert get_broker().policies() == {A: Policy(paused=True)}


# The scheduler


def test_the_scheduler_puts_in_force_what_it_finds_when_it_starts_and_later_again(scheduler):
    pause()
    client: Any = get_broker().client
    client.delete(redis_key("policy"))
    scheduler.tick()
    assert get_broker().policies() == {A: Policy(paused=True)}

    client.delete(redis_key("policy"))
    sql("UPDATE tenant_q_tenantpolicy SET weight = 5, paused = false")
    scheduler.tick()
    assert get_broker().policies() == {}, "not at every tick"
    scheduler.upkeep._due["policies"] -= 30.1
    scheduler.tick()
    assert get_broker().policies() == {A: Policy(5.0)}
    sql("DELETE FROM tenant_q_tenantpolicy")
    scheduler.upkeep._due["policies"] -= 30.1
    scheduler.tick()
    assert get_broker().policies() == {}


def test_schedules_fire_without_the_table_of_policies(scheduler, caplog):
    QUtilities.create_schedule("tests.tasks.nothing", schema_name=A, next_run=timezone.now() - timedelta(seconds=1))
    sql("ALTER TABLE tenant_q_tenantpolicy RENAME TO policies_away")
    try:
        scheduler.tick()
        scheduler.tick()
    finally:
        sql("ALTER TABLE policies_away RENAME TO tenant_q_tenantpolicy")
    assert get_broker().queue_size(A) == 1
    assert caplog.text.count("Could not apply the tenants' policies") == 1


# Another broker


@pytest.fixture
def other_broker(settings, monkeypatch) -> Iterator[None]:
    """Django-Q2's own Redis broker, which stands for all that have one queue for all tenants."""
    path = "django_q.brokers.redis_broker.Redis"
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"broker_class": path}
    monkeypatch.setattr(Conf, "REDIS", settings.REDIS_URL)
    monkeypatch.setattr(Conf, "BROKER_CLASS", path)
    brokers.forget_brokers()
    yield
    brokers.forget_brokers()


def test_a_broker_that_cannot_pause_refuses_before_anything_is_saved(other_broker):
    with pytest.raises(ConfigurationError, match="Redis broker cannot pause, cap or weigh tenants"):
        pause()
    assert not TenantPolicy.objects.exists()
    assert records() == []
    # How many results are kept is not the broker's matter.
    assert mstenant("limit", A, "--max-results", "7").endswith("max results 7.")
    (row,) = json.loads(mstenant("list", "--json"))
    assert (row["max_results"], row["queued"]) == (7, None)
    sql("UPDATE tenant_q_tenantpolicy SET paused = true")
    with pytest.raises(ConfigurationError):
        policies.put_in_force_everywhere()


# mstenant


def test_pause_resume_and_limit_say_what_is_in_force():
    put("a1", "a2")
    put("b1", schema=B)
    assert mstenant("pause", A) == "acme_corp is paused: 2 tasks wait."
    assert mstenant("pause", B) == "globex_inc is paused: 1 task waits."
    assert fetched() == []
    assert mstenant("resume", B) == "globex_inc is not paused: 1 task waits."
    assert fetched() == ["b1"]
    said = mstenant("limit", A, "--weight", "2.5", "--max-running", "3", "--max-queued", "4", "--max-results", "5")
    limits = "acme_corp has weight 2.5, max running 3, max queued 4, max results 5 and is paused: 2 tasks wait."
    assert said == limits
    assert mstenant("resume", A) == "acme_corp is not paused: 2 tasks wait."
    said = mstenant("limit", A, "--max-running", "0", "--max-queued", "none", max_results=None)
    assert said == "acme_corp has weight 2.5, max running -, max queued -, max results -: 2 tasks wait."
    assert get_broker().policies() == {A: Policy(2.5), B: Policy()}
    acts = [(one["actor"], one["act"], one["schema_name"]) for one in records()]
    expected = [("pause", A), ("pause", B), ("resume", B), ("limit", A), ("resume", A), ("limit", A)]
    assert acts == [("olga", act, schema) for act, schema in reversed(expected)]


def test_tenants_are_listed():
    assert mstenant() == "No tenant has a policy; `mstenant list --all` lists every tenant."
    put("a1", "a2")
    mstenant("pause", A)
    mstenant("limit", B, "--weight", "0.5", "--max-running", "12")
    assert mstenant("list").splitlines() == [
        "schema      weight  max running  max queued  max results  paused  queued",
        "acme_corp        1            -           -            -     yes       2",
        "globex_inc     0.5           12           -            -      no       0",
    ]
    listed = mstenant("list", "--all").splitlines()
    assert [line.split()[0] for line in listed] == ["schema", *schemas.TENANTS]
    assert [line.split()[0] for line in mstenant("list", "initech_llc").splitlines()] == ["schema", "initech_llc"]


def test_an_option_may_stand_before_the_action_and_the_tenant_be_an_option():
    assert mstenant("--weight", "2", "limit", A).startswith("acme_corp has weight 2,")
    assert json.loads(mstenant("--json", "--schema", A, "pause"))["paused"]
    assert mstenant("resume", "--schema", A, "--no-color", "-v", "0") == "acme_corp is not paused: no tasks wait."
    assert command("mstenant", action="pause", schema=A) == "acme_corp is paused: no tasks wait."
    assert command("mstenant", "limit", A, weight=3.0).startswith("acme_corp has weight 3,")
    assert len(json.loads(mstenant("--all", "--json"))) == len(schemas.TENANTS)


def test_each_action_has_its_help(capsys):
    for name, option in (("limit", "--weight W"), ("rename", "--wait SECONDS"), ("list", "--all"), ("pause", "SCHEMA")):
        with pytest.raises(SystemExit):
            mstenant(name, "--help")
        said = capsys.readouterr().out
        assert f"mstenant {name} " in said and option in said
        assert ("--weight" in said) == (name == "limit")


def test_answers_in_json():
    put("a1")
    expected = DEFAULTS | {"schema": A, "paused": True, "queued": 1}
    assert json.loads(mstenant("pause", A, "--json")) == expected
    assert json.loads(mstenant("list", "--json")) == [expected]
    assert json.loads(mstenant("list", "globex_inc", "--json")) == [DEFAULTS | {"schema": B, "queued": 0}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("pause",), "Name the tenant: `mstenant pause SCHEMA`; `mstenant list --all` lists every tenant."),
        (
            ("pause", "acme_crop"),
            "No tenant has the schema name 'acme_crop'; create it, or name one that Customer lists.",
        ),
        (
            ("list", "acme_crop"),
            "No tenant has the schema name 'acme_crop'; create it, or name one that Customer lists.",
        ),
        (
            ("limit", A),
            "Nothing to change for acme_corp: give one of --weight, --max-running, --max-queued, --max-results, "
            "--success-days, --max-failures, --failure-days.",
        ),
        (("pause", A, "--weight", "2"), "--weight belongs to `mstenant limit`, not to `mstenant pause`."),
        (
            ("pause", A, "--all"),
            "--all belongs to `mstenant list` and `mstenant probe` and `mstenant provision` and `mstenant rotate`, "
            "not to `mstenant pause`.",
        ),
        (("list", A, "--all"), "--all belongs to `mstenant list` without a tenant; leave out acme_corp or it."),
        (
            ("limit", A, "--max-running", "many"),
            "Error: argument --max-running: 'many' is not a whole number; give 1 or more, or 0 for no limit",
        ),
        (
            ("limit", A, "--weight", "heavy"),
            "Error: argument --weight: 'heavy' is not a number; give one from 0.001 to 1000",
        ),
        (
            ("limit", A, "--max-running", "-3"),
            "max_running of acme_corp cannot be -3: Ensure this value is greater than or equal to 1.",
        ),
        (
            ("limit", A, "--weight", "0"),
            "weight of acme_corp cannot be 0.0: Ensure this value is from 0.001 to 1000.",
        ),
    ],
)
def test_errors_name_the_thing_and_the_way_out(arguments, message):
    with pytest.raises(CommandError) as error:
        mstenant(*arguments)
    assert str(error.value).split("\n")[0] == message
    assert records() == []


# msdead


def dead_letter(*ids: str, schema: str = A) -> None:
    for id in ids:
        put(id, schema=schema)
        (lease,) = get_broker().fetch("w", limit=1).leases
        get_broker().dead_letter("w", lease, "Because: it is a test")


def test_a_retry_and_a_purge_of_dead_packages_are_recorded():
    dead_letter("a1", "a2")
    dead_letter("b1", schema=B)
    assert command("msdead", "retry", "--all") == "3 queued again"
    by_schema = {one["schema_name"]: one for one in records()}
    assert {one["act"] for one in records()} == {"retry"}
    assert by_schema[A]["target"] == "a1 a2"
    assert by_schema[A]["after"] == {"cluster": get_broker().cluster, "count": 2}
    assert (by_schema[B]["actor"], by_schema[B]["target"], by_schema[B]["after"]["count"]) == ("olga", "b1", 1)
    get_broker().purge()

    dead_letter("a3")
    assert command("msdead", "purge", "a3") == "1 purged"
    assert (records()[0]["act"], records()[0]["target"], len(records())) == ("purge", "a3", 3)
    with pytest.raises(CommandError):
        command("msdead", "purge", "a3")
    assert len(records()) == 3, "nothing was done"


def test_the_dead_of_all_the_sites_clusters_are_found(settings, other_cluster):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {"ALT_CLUSTERS": {"long": {"timeout": 600}}}
    dead_letter("a1")
    other = get_broker(other_cluster("long"))
    other.enqueue([Message(id="b1", schema=B, func="f", payload="p")])
    (lease,) = other.fetch("w").leases
    other.dead_letter("w", lease, "Because: it is a test")
    listed = {one["id"]: one["cluster"] for one in json.loads(command("msdead", "--json"))}
    assert listed == {"a1": get_broker().cluster, "b1": "long"}
    assert command("msdead", "retry", "a1", "b1") == "2 queued again"
    assert (get_broker().queue_size(A), other.queue_size(B)) == (1, 1)


def test_what_cannot_be_recorded_is_not_done():
    dead_letter("a1")
    sql("ALTER TABLE tenant_q_auditrecord RENAME TO records_away")
    try:
        with pytest.raises(Exception, match="tenant_q_auditrecord"):
            command("msdead", "purge", "--all")
    finally:
        sql("ALTER TABLE records_away RENAME TO tenant_q_auditrecord")
    assert get_broker().counts().dead == 1


def test_what_is_not_done_is_not_recorded(monkeypatch):
    dead_letter("a1")

    def fail(*_: Any) -> int:
        raise BrokerError("Redis went away just now")

    monkeypatch.setattr(get_broker(), "purge_dead", fail)
    with pytest.raises(CommandError, match="just now"):
        command("msdead", "purge", "a1")
    assert records() == []

"""Each tenant's configuration: changed in one transaction, audited, and read with the tenant's row."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import MappingProxyType
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, connection, transaction
from django.db.utils import ProgrammingError

from tenant_q import tenancy
from tenant_q.exceptions import ConfigurationError, InEventLoop, NoTenant, UnknownTenant, WrongArgument
from tenant_q.models import AuditRecord, TenantConfiguration
from tenant_q.operations import deleted_tenants, renaming
from tenant_q.policies import configure
from tenant_q.tenancy import TenantConfig, config, in_schema
from tenant_q.tenancy.tenants import known_config
from tenant_q.utils import QUtilities
from tests import schemas
from tests.conftest import wait_until
from tests.integration.conftest import in_thread, sql, waits_for_a_lock, work
from tests.integration.planning import on_the_wire

A, B = "acme_corp", "globex_inc"
EMPTY = TenantConfig()
TABLE = "tenant_q_tenantconfig"
pytestmark = pytest.mark.seam


@pytest.fixture(autouse=True)
def clean(tenants) -> Iterator[None]:
    forget()
    yield
    connection.set_schema_to_public()
    forget()


def forget() -> None:
    sql(f"TRUNCATE {TABLE}, tenant_q_auditrecord")
    tenancy.forget_tenants()


@contextmanager
def without_statements() -> Iterator[None]:
    with on_the_wire() as messages:
        yield
    assert messages == []


@contextmanager
def before_the_migration() -> Iterator[None]:
    """The table of configurations is not there, as before migration 0009."""
    sql(f"ALTER TABLE {TABLE} RENAME TO not_yet")
    try:
        yield
    finally:
        connection.set_schema_to_public()
        sql(f"ALTER TABLE not_yet RENAME TO {TABLE}")


def result_of(worker: Any, func: str, *args: Any, schema: str = A, **kwargs: Any) -> Any:
    id = QUtilities.add_async_task(f"tests.tasks_configured.{func}", *args, schema_name=schema, **kwargs)
    work(worker)
    return QUtilities.get_result(id, schema_name=schema, raise_failure=True)


# The value


def test_a_configuration_is_read_only():
    found: Any = TenantConfig("Acme", {"a": [1]}, {"audit": True}, {"max_items": 5})
    assert found.features.get("audit") is True
    for change in (
        lambda: found.features.__setitem__("audit", False),
        lambda: setattr(found, "display_name", "x"),
    ):
        with pytest.raises((TypeError, AttributeError)):
            change()


def test_a_configuration_survives_json_pickle_and_copy():
    found = TenantConfig("Acme", {"a": [1, {"b": None}]}, {"audit": True}, {"max_items": 5})
    for same in (
        TenantConfig.from_json(json.loads(json.dumps(found.as_json()))),
        pickle.loads(pickle.dumps(found)),
        copy.deepcopy(found),
    ):
        assert same == found
        assert isinstance(same.settings, MappingProxyType)
    assert TenantConfig.from_json(None) == TenantConfig.from_json({"later": 1}) == EMPTY


# Changes


def test_a_change_is_saved_recorded_and_read():
    found = configure(A, actor="olga", display_name="Acme", features={"audit": True}, limits={"max_items": 5})
    assert found == config(A) == TenantConfig("Acme", {}, {"audit": True}, {"max_items": 5})
    assert config(B) == EMPTY
    record = AuditRecord.objects.get()
    assert (record.actor, record.act, record.schema_name) == ("olga", "configure", A)
    assert record.before == {"display_name": "", "features": {}, "limits": {}}
    assert record.after == {"display_name": "Acme", "features": {"audit": True}, "limits": {"max_items": 5}}


def test_other_keys_stay_and_none_removes_one():
    configure(A, actor="olga", settings={"colour": "red", "size": 1}, limits={"max_items": 5, "seats": [2]})
    configure(A, actor="otto", settings={"colour": ["blue"]}, limits={"max_items": None, "seats": 3})
    assert config(A) == TenantConfig(settings={"colour": ["blue"], "size": 1}, limits={"seats": 3})
    record = AuditRecord.objects.first()
    assert record.before == {"settings": {"colour": "red"}, "limits": {"max_items": 5, "seats": [2]}}
    assert record.after == {"settings": {"colour": ["blue"]}, "limits": {"seats": 3}}


def test_a_configuration_can_be_given_to_another_tenant():
    given = configure(A, actor="olga", settings={"list": (1, 2)}, features={"audit": True})
    assert given.settings["list"] == [1, 2], "as it is read later"
    configure(B, actor="olga", settings=given.settings, features=given.features)
    assert config(B) == given


@pytest.mark.parametrize("is_there", [True, False])
def test_of_two_changes_at_once_none_is_lost(is_there):
    if is_there:
        configure(A, actor="olga", features={"exports": False})
    with transaction.atomic():
        configure(A, actor="olga", features={"audit": True})
        thread = in_thread(lambda: configure(A, actor="otto", features={"exports": True}))
        wait_until(waits_for_a_lock)
    thread.join()
    assert config(A).features == {"audit": True, "exports": True}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"limits": {"max_items": 0}}, "limits of acme_corp cannot be {'max_items': 0}: max_items must be a whole"),
        ({"limits": {"max_open_workflows": "5"}}, "max_open_workflows must be a whole number of at least 1, or null."),
        ({"limits": {"max_connections": 1.5}}, "max_connections must be a whole number"),
        ({"limits": {"max_connections": True}}, "max_connections must be a whole number"),
        ({"limits": [1]}, "Enter an object of JSON"),
        ({"features": None}, "Enter an object of JSON"),
        ({"settings": {"a": float("nan")}}, "the value at $.a is nan, which is no number in JSON"),
        ({"settings": {"a": "\0"}}, "which has a zero character"),
        ({"settings": {"a": "\ud800"}}, "which has half of a surrogate pair"),
        ({"settings": {"a": {1: 2}}}, "the value at $.a has the key 1, which is no text"),
        ({"settings": {"a": {1}}}, "whose type set is not one of JSON"),
        ({"display_name": 5}, "Enter a text."),
        ({"display_name": "x" * 201}, "Enter at most 200 characters."),
        ({"display_name": "\0"}, "which has a zero character"),
        ({"fetures": {}}, "A tenant's configuration has no 'fetures': did you mean 'features'?"),
    ],
)
def test_a_value_that_cannot_be_changes_nothing(values, message):
    with pytest.raises(ConfigurationError) as error:
        configure(A, actor="olga", **values)
    assert message in str(error.value)
    assert not TenantConfiguration.objects.exists()
    assert not AuditRecord.objects.exists()


def test_a_value_that_contains_itself_is_refused():
    endless: dict[str, Any] = {}
    endless["a"] = endless
    with pytest.raises(ConfigurationError, match="is nested more than 100 levels deep"):
        configure(A, actor="olga", settings=endless)


def test_a_form_names_what_is_wrong():
    with pytest.raises(ValidationError) as error:
        TenantConfiguration(schema_name=A, settings=[], limits={"max_items": -1, "seats": -1}).full_clean()
    assert error.value.message_dict == {
        "settings": ["Enter an object of JSON, such as {}."],
        "limits": ["max_items must be a whole number of at least 1, or null."],
    }
    limits = {"max_items": 1, "max_connections": None, "seats": "many"}
    TenantConfiguration(schema_name=A, limits=limits).full_clean()


@pytest.mark.parametrize("field", ["settings", "features", "limits"])
def test_the_database_refuses_what_is_no_object(field):
    with pytest.raises(IntegrityError, match=f"tenant_q_{field}_is_an_object"):
        TenantConfiguration.objects.create(schema_name=A, **{field: []})


@pytest.mark.parametrize("limit", ["max_items", "max_open_workflows", "max_connections"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "5", True, [5], {"a": 5}])
def test_the_database_refuses_limits_that_could_not_be_kept(limit, value):
    with pytest.raises(IntegrityError, match="tenant_q_known_limits_are_counts"):
        TenantConfiguration.objects.create(schema_name=A, limits={limit: value})


def test_a_limit_is_a_whole_number_however_it_is_written():
    config = TenantConfig(limits={"max_items": 5, "max_connections": 5.0, "max_open_workflows": None, "seats": True})
    assert [config.limit(name) for name in ("max_items", "max_connections", "max_open_workflows")] == [5, 5, None]
    assert TenantConfig(limits={"max_connections": 2**40}).limit("max_connections") == 2**31 - 1
    assert TenantConfig(limits={"max_items": True}).limit("max_items") is None
    assert TenantConfig(limits={"max_items": "5"}).limit("max_items") is None


def test_the_database_takes_limits_of_the_project():
    limits = {"max_items": 1, "max_open_workflows": None, "max_connections": 2**40, "seats": 0, "names": ["x"]}
    TenantConfiguration.objects.create(schema_name=A, limits=limits)
    assert config(A).limits == limits


@pytest.mark.parametrize(
    ("schema", "kind", "message"),
    [
        ("acme_crop", UnknownTenant, "No tenant has the schema name 'acme_crop'"),
        ("public", ConfigurationError, "The public schema 'public' has no configuration; name a tenant."),
    ],
)
def test_only_a_tenant_is_configured(schema, kind, message):
    with pytest.raises(kind, match=message):
        configure(schema, actor="olga", display_name="x")
    assert not TenantConfiguration.objects.exists()


# Reading


def test_the_current_tenant_is_the_default():
    configure(A, actor="olga", display_name="Acme")
    with in_schema(A):
        assert config().display_name == "Acme"
        with in_schema(B):
            assert config() == EMPTY
            assert config(A).display_name == "Acme"
            assert connection.schema_name == B


def test_it_must_be_a_tenant():
    with pytest.raises(NoTenant, match="Schema 'public' has no configuration: choose a tenant"):
        config()
    with pytest.raises(UnknownTenant):
        config("acme_crop")
    number: Any = 5
    with pytest.raises(WrongArgument):
        config(number)


def test_each_caller_has_a_copy_of_its_own(worker):
    configure(A, actor="olga", settings={"list": [1]})
    assert result_of(worker, "spoil_the_list") == [1]
    config(A).settings["list"].append("spoilt")
    assert config(A).settings["list"] == [1]


@pytest.mark.parametrize("is_migrated", [True, False])
def test_no_tenant_that_is_handed_out_shows_how_it_was_read(is_migrated):
    with nullcontext() if is_migrated else before_the_migration():
        tenancy.forget_tenants()
        assert not [name for name in vars(tenancy.get_tenant(A)) if name.startswith("tenant_q")]
        tenancy.look_up_together([B])
        assert not [name for name in vars(tenancy.get_tenant(B)) if name.startswith("tenant_q")]


@pytest.mark.parametrize("func", ["feature", "feature_in_a_coroutine"])
def test_a_task_has_it(worker, func):
    configure(A, actor="olga", features={"audit": "yes"})
    assert result_of(worker, func, "audit") == "yes"
    assert result_of(worker, func, "audit", schema=B) is None


def test_a_coroutine_gets_only_that_of_its_own_task(worker):
    configure(B, actor="olga", features={"audit": "yes"})
    config(B)
    id = QUtilities.add_async_task("tests.tasks_configured.feature_of_another", B, "audit", schema_name=A)
    work(worker)
    task = QUtilities.fetch_task(id, schema_name=A)
    assert not task.success
    assert "tenancy.config() cannot be used in a running event loop" in task.result


def test_an_event_loop_without_a_task_is_refused():
    config(A)

    async def main() -> None:
        with pytest.raises(InEventLoop):
            config(A)
        async with in_schema(A):
            with pytest.raises(InEventLoop):
                config()

    asyncio.run(main())


@pytest.mark.parametrize("together", [False, True])
def test_it_costs_no_statement_once_the_tenant_is_known(together):
    configure(A, actor="olga", features={"audit": True})
    tenancy.forget_tenants()
    tenancy.look_up_together([A, B]) if together else tenancy.get_tenant(A)
    with without_statements():
        assert config(A).features == {"audit": True}


@pytest.mark.parametrize("together", [False, True])
def test_the_look_up_of_a_tenant_takes_no_statement_more(together):
    tenancy.look_up_together([A])
    with on_the_wire() as messages:
        tenancy.look_up_together([B]) if together else tenancy.refresh_tenant(A, 0)
    assert len([message for message in messages if "tenant_q_tenantconfig" in message]) == 1
    tenants = tenancy.tenant_model()._meta.db_table
    assert len([message for message in messages if f'FROM "{tenants}"' in message]) <= 1 + (not together)


def test_a_change_by_another_process_is_seen_after_the_cache(settings):
    assert config(A) == EMPTY
    columns = "schema_name, display_name, settings, features, limits"
    sql(f"INSERT INTO {TABLE} ({columns}) VALUES ('{A}', 'x', '{{}}', '{{}}', '{{}}')")
    assert config(A) == EMPTY
    settings.TENANT_Q = {"tenant_cache_seconds": 0}
    assert config(A).display_name == "x"


def test_a_change_through_the_orm_is_seen_at_once():
    assert config(A) == EMPTY
    row = TenantConfiguration.objects.create(schema_name=A, display_name="x")
    assert config(A).display_name == "x"
    row.display_name = "y"
    row.save()
    assert config(A).display_name == "y"
    row.delete()
    assert config(A) == EMPTY


def test_what_is_rolled_back_is_not_kept():
    assert config(A) == EMPTY
    with transaction.atomic():
        with pytest.raises(ZeroDivisionError), transaction.atomic():
            TenantConfiguration.objects.create(schema_name=A, display_name="inner")
            tenancy.refresh_tenant(A, 0)
            tenancy.look_up_together([A])
            assert config(A).display_name == "inner"
            1 / 0  # noqa: B018
        assert config(A) == EMPTY
        TenantConfiguration.objects.create(schema_name=A, display_name="outer")
        assert config(A).display_name == "outer"
        assert known_config(A).display_name == "outer", "a coroutine of a test in a transaction sees it too"
        transaction.set_rollback(True)
    assert config(A) == EMPTY


def test_a_task_sees_its_own_change(worker):
    assert result_of(worker, "configure", A, audit=1) == {"audit": 1}
    assert AuditRecord.objects.get().actor == "a task"


# Beside an older version


def test_before_the_migration_tasks_run_and_all_configurations_are_empty(worker):
    with before_the_migration():
        tenancy.forget_tenants()
        assert result_of(worker, "feature", "audit") is None
        with transaction.atomic(), in_schema(B):
            assert config() == EMPTY
            tenancy.look_up_together([A, B])
        assert config(A) == EMPTY
    tenancy.refresh_tenant(A, 0)
    configure(A, actor="olga", features={"audit": True})
    assert config(A).features == {"audit": True}, "found without a restart"


def test_a_migration_that_is_reversed_fails_no_task(worker):
    configure(A, actor="olga", features={"audit": True})
    assert config(A) != EMPTY
    with before_the_migration():
        tenancy.refresh_tenant(A, 0)
        assert config(A) == EMPTY
        assert result_of(worker, "feature", "audit") is None


def test_in_a_transaction_a_reversed_migration_is_forgotten():
    config(A)
    with before_the_migration():
        with pytest.raises(ProgrammingError), transaction.atomic():
            tenancy.refresh_tenant(A, 0)
        with transaction.atomic():
            assert config(A) == EMPTY


def test_before_the_migration_a_tenant_can_be_deleted():
    schemas.clone_tenants(["newcomer"])
    with before_the_migration():
        schemas.drop_tenant("newcomer")
    tenancy.forget_tenants()
    with pytest.raises(UnknownTenant):
        config("newcomer")


# The end of a tenant


def test_the_configuration_of_a_deleted_tenant_goes_with_it():
    schemas.clone_tenants(["newcomer"])
    try:
        configure("newcomer", actor="olga", display_name="x")
    finally:
        schemas.drop_tenant("newcomer")
        tenancy.forget_tenants()
    assert not TenantConfiguration.objects.exists()
    assert AuditRecord.objects.get().schema_name == "newcomer"


@pytest.mark.parametrize("is_migrated", [True, False])
def test_a_renamed_tenant_keeps_its_configuration(spare, is_migrated):
    deleted_tenants.find_and_clear()
    configure(spare, actor="olga", display_name="x")
    TenantConfiguration.objects.create(schema_name="moved", display_name="left over")
    if is_migrated:
        renaming.rename(spare, "moved", actor="olga", wait=5)
    else:
        with before_the_migration():
            renaming.rename(spare, "moved", actor="olga", wait=5)
    tenancy.forget_tenants()
    assert config("moved").display_name == ("x" if is_migrated else "left over")

"""The attacker: a role that writes a tenant's task rows by SQL, and wants web processes and workers to run its pickles.

Pages, and "Run again", load a pickle only where its signature fits. `TENANT_Q["signed_results"]` makes every reader so.
"""

from __future__ import annotations

import pickle
import uuid
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db.models.signals import post_save, pre_delete
from django.test import Client
from django.utils import timezone
from django_q import tasks as django_q_tasks
from django_q.models import Task
from picklefield.fields import dbsafe_decode

from tenant_q.brokers import get_broker
from tenant_q.exceptions import UnsignedResult
from tenant_q.lifecycle import row_signing, save_results
from tenant_q.lifecycle.transactional import one_transaction
from tenant_q.package.build import build
from tenant_q.package.outcome import Outcome
from tenant_q.package.package import CODE
from tenant_q.package.plain_pickles import ALLOWED, NotPlain, load_plain
from tenant_q.tenancy import current_key, in_schema
from tenant_q.utils import QUtilities
from tests import tasks
from tests.integration.conftest import make_worker, sql, work  # noqa: F401  (a fixture)
from tests.schemas import served_at

pytestmark = pytest.mark.usefixtures("clean_admin")

A, B = "acme_corp", "globex_inc"
COLUMNS = ("args", "kwargs", "result")
ID = "a" * 32


class Bomb:
    """A value whose pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


@pytest.fixture
def exploded(tmp_path: Path) -> Path:
    return tmp_path / "exploded"


@pytest.fixture
def page(tenants) -> Iterator[Client]:
    with served_at(A, "rows.localhost"):
        client = Client(HTTP_HOST="rows.localhost")
        with in_schema(A):
            client.force_login(get_user_model().objects.create_superuser("boss"))
        yield client


def done(schema: str = A, *, id: str = ID, success: bool = True, **changes: Any) -> Task:
    """A row as a worker writes it."""
    options = {"hook": changes.pop("hook", None), "group": "g"}
    args = changes.pop("args", (1, 2))
    package = build("tests.tasks.add", args, {"q_options": options}, schema=schema, id=id)
    now = timezone.now()
    values = {"result": 3 if success else "broken", **changes}
    outcome = Outcome(package=package, success=success, started=now, stopped=now, seconds=0.0, **values)
    save_results.save_or_raise([outcome])
    with in_schema(schema):
        return Task.objects.get(pk=id)


def texts(schema: str = A, id: str = ID) -> dict[str, str]:
    ((args, kwargs, result),) = sql(f"SELECT args, kwargs, result FROM {schema}.django_q_task WHERE id = %s", id)
    return {"args": args, "kwargs": kwargs, "result": result}


def write(row: str = ID, **columns: Any) -> None:
    """What the attacker can: write any column of a row."""
    sets = ", ".join(f"{name} = %s" for name in columns)
    sql(f"UPDATE {A}.django_q_task SET {sets} WHERE id = %s", *columns.values(), row)


def bomb(exploded: Path, like: str = "") -> str:
    """A pickle that explodes, with the trailer of another column if there is one."""
    trailer = b64decode(like)[-row_signing._TRAILER :] if like else b""
    return b64encode(pickle.dumps(Bomb(exploded)) + trailer).decode()


def look_at_everything(client: Client) -> str:
    """Every page and act that reads a task's row. Returns what they said."""
    said = []
    for model in ("success", "failure"):
        said += [client.get(f"/admin/django_q/{model}/?{query}") for query in ("", "q=add", "group=g")]
        said.append(client.get(f"/admin/django_q/{model}/{ID}/change/", follow=True))
        said.append(client.get(f"/admin/django_q/{model}/{ID}/history/", follow=True))
        said.append(client.get(f"/admin/django_q/{model}/{ID}/delete/", follow=True))
        said.append(client.post(f"/admin/django_q/{model}/{ID}/act/run_again/", follow=True))
        chosen = {"_selected_action": [ID]}
        said.append(client.post(f"/admin/django_q/{model}/", chosen | {"action": "run_again"}, follow=True))
        said.append(client.post(f"/admin/django_q/{model}/", chosen | {"action": "delete_selected"}))
    said.append(client.get("/admin/django_q/schedule/"))
    return " ".join(answer.content.decode() for answer in said)


# Pages and "Run again"


@pytest.mark.seam
@pytest.mark.parametrize("success", [True, False])
@pytest.mark.parametrize("column", COLUMNS)
def test_a_pickle_written_by_sql_is_not_loaded_by_any_page(page, exploded, column, success):
    done(success=success)
    for text in (bomb(exploded), bomb(exploded, like=texts()[column])):
        write(**{column: text})
        said = look_at_everything(page)
        assert "This value is not signed" in said
        assert "is not a plain type" in said
    assert not exploded.exists()
    with in_schema(A):
        Task.objects.get(pk=ID)
    assert exploded.exists(), "what Django-Q2 itself does"


@pytest.mark.parametrize("column", ["args", "kwargs"])
def test_a_row_that_was_written_to_does_not_run_again(page, column):
    done()
    for text in (b64encode(pickle.dumps(("x",))).decode(), None):
        write(**{column: text})
        assert "are not signed by a cluster of this site" in look_at_everything(page)
    assert get_broker().queue_size() == 0


def test_an_iter_whose_results_were_written_does_not_run_again(page):
    done(args=((1, 2), (3, 4)), success=False)
    write(result=b64encode(pickle.dumps([1, 2])).decode())
    assert "its result are not signed" in look_at_everything(page)
    assert get_broker().queue_size() == 0


@pytest.mark.parametrize(
    "columns",
    [{"func": "os.system"}, {"hook": "os.system"}, {"cluster": "elsewhere"}, {"id": "b" * 32}],
)
def test_a_signature_binds_the_rest_of_the_row(page, columns):
    done()
    write(**columns)
    id = columns.get("id", ID)
    answer = page.post(f"/admin/django_q/success/{id}/act/run_again/", follow=True)
    assert "are not signed" in answer.content.decode()
    assert "not signed" in page.get(f"/admin/django_q/success/{id}/change/").content.decode()
    assert get_broker().queue_size() == 0


@pytest.mark.seam
def test_what_was_signed_for_another_tenant_column_or_origin_does_not_fit(page, exploded):
    done(args=({"call": "theirs"},))
    with in_schema(A):
        mine = Task.objects.get()
    theirs = done(B)
    fits = row_signing.verified_column
    assert fits(texts()["args"], "args", mine, A) is not None
    assert fits(texts(B)["args"], "args", theirs, A) is None, "of another tenant, under the same id"
    assert fits(texts()["args"], "kwargs", mine, A) is None, "of another column"
    data = b64decode(texts()["args"])
    place = len(data) - row_signing._DIGEST - 1
    for letter in b"sa-x":
        forged = data[:place] + bytes([letter]) + data[place + 1 :]
        assert fits(b64encode(forged).decode(), "args", mine, A) is None, "with another origin"
    for text in ("", "====", "x", b64encode(row_signing.TAG).decode(), b64encode(data[:-1]).decode()):
        assert fits(text, "args", mine, A) is None
    write(args=texts(B)["args"])
    assert "are not signed" in look_at_everything(page)
    assert get_broker().queue_size() == 0


def test_a_tenant_keeps_its_signatures_when_it_is_renamed(tenants, monkeypatch):
    """What is signed is the tenant's primary key, not the schema's name."""
    row = done()
    key = current_key(A)
    monkeypatch.setattr(row_signing, "current_key", lambda schema: key)
    assert row_signing.verified_column(texts()["args"], "args", row, "acme_renamed") is not None


@pytest.mark.seam
def test_a_signed_row_is_shown_and_runs_again(page, make_worker):  # noqa: F811
    with in_schema(A):
        id = QUtilities.add_async_task("tests.tasks.add", Decimal("1.5"), b=Decimal(2))
    worker = make_worker()
    work(worker)
    shown = page.get(f"/admin/django_q/success/{id}/change/").content.decode()
    assert "Decimal(&#x27;3.5&#x27;)" in shown and "not signed" not in shown
    assert "queued again" in page.post(f"/admin/django_q/success/{id}/act/run_again/", follow=True).content.decode()
    work(worker)
    with in_schema(A):
        assert [task.result for task in Task.objects.all()] == [Decimal("3.5")] * 2


def test_unsigned_rows_of_plain_values_are_shown(page):
    """As those that the version before has written."""
    done()
    value = {"n": [1, 2.5, None, True, b"x"], "at": datetime(2026, 1, 2, tzinfo=UTC), "sum": Decimal("1.10")}
    write(result=b64encode(pickle.dumps(value)).decode(), args=None)
    shown = page.get(f"/admin/django_q/success/{ID}/change/").content.decode()
    assert "This value is not signed" in shown and "Decimal(&#x27;1.10&#x27;)" in shown


# What is signed, and how Django-Q2 reads it


def _receiver(**kwargs: Any) -> None:
    """A receiver of the project's, with which rows are written one by one."""


@pytest.mark.seam
@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("result", [3, None, {"a": (1, "ä")}, "x" * 100_000])
def test_both_ways_to_write_sign_and_django_q2_reads_them(tenants, one_by_one, result):
    if one_by_one:
        post_save.connect(_receiver, sender=Task)
    try:
        row = done(args=(1, "x"), result=result, hook="tests.tasks.nothing")
    finally:
        post_save.disconnect(_receiver, sender=Task)
    assert (row.args, row.kwargs, row.result, row.hook) == ((1, "x"), {}, result, "tests.tasks.nothing")
    stored = texts()
    assert (stored["result"] is None) == (result is None)
    for name, text in stored.items():
        if text is not None:
            signed = row_signing.verified_column(text, name, row, A)
            assert signed is not None and signed.origin == CODE
            assert dbsafe_decode(text) == getattr(row, name)
    with in_schema(A):
        assert django_q_tasks.result(ID) == QUtilities.get_result(ID) == result
        assert django_q_tasks.fetch(ID).args == (1, "x")
        assert list(django_q_tasks.result_group("g")) == QUtilities.get_result_group("g") == [result]


def test_a_later_result_of_a_failed_row_is_signed(page):
    done(success=False)
    row = done(success=True)
    assert row.result == 3
    assert all(row_signing.verified_column(text, name, row, A) for name, text in texts().items())


def test_an_older_key_fits_while_it_is_a_fallback(page, settings):
    row = done()
    settings.SECRET_KEY, before = "another", settings.SECRET_KEY
    assert row_signing.verified_column(texts()["args"], "args", row, A) is None
    with in_schema(A):
        assert QUtilities.get_result(ID) == 3, "as it was"
    settings.SECRET_KEY_FALLBACKS = ["an older one", before]
    assert row_signing.verified_column(texts()["args"], "args", row, A) is not None
    settings.TENANT_Q = settings.TENANT_Q | {"signed_results": True}
    with in_schema(A):
        assert QUtilities.get_result(ID) == 3


# TENANT_Q["signed_results"]

READERS: dict[str, Callable[[], Any]] = {
    "get_result": lambda: QUtilities.get_result(ID),
    "by name": lambda: QUtilities.get_result("named"),
    "fetch_task": lambda: QUtilities.fetch_task(ID),
    "get_result_group": lambda: QUtilities.get_result_group("g"),
    "fetch_task_group": lambda: QUtilities.fetch_task_group("g"),
}


@pytest.fixture
def strict(settings) -> None:
    settings.TENANT_Q = settings.TENANT_Q | {"signed_results": True}


@pytest.mark.seam
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("column", COLUMNS)
def test_strict_readers_load_no_unsigned_value(strict, exploded, column, reader):
    done()
    write(name="named", **{column: bomb(exploded)})
    with in_schema(A), pytest.raises(UnsignedResult, match="enqueue it anew, or delete its row"):
        READERS[reader]()
    assert not exploded.exists()


def test_without_the_setting_unsigned_values_are_loaded(tenants, exploded):
    done()
    write(name="named", result=b64encode(pickle.dumps("old")).decode(), args=b64encode(pickle.dumps((1,))).decode())
    with in_schema(A):
        assert QUtilities.get_result(ID) == "old"
        assert QUtilities.fetch_task("named").args == (1,)
        assert QUtilities.get_result_group("g") == ["old"]


def test_strict_readers_load_what_is_signed(strict):
    done(result={"a": uuid.UUID(int=1)})
    with in_schema(A):
        assert QUtilities.get_result(ID) == {"a": uuid.UUID(int=1)}
        task = QUtilities.fetch_task(ID)
        assert task is not None and (task.args, task.kwargs) == ((1, 2), {})
        assert not task.get_deferred_fields()
        assert QUtilities.get_result_group("g") == [{"a": uuid.UUID(int=1)}]


def test_strict_readers_of_state_and_groups_load_nothing(strict, exploded):
    done(success=False)
    write(**{name: bomb(exploded) for name in COLUMNS})
    with in_schema(A):
        assert QUtilities.get_status(ID) == "failure"
        assert QUtilities.get_group_count("g", failures=True) == 1
        pre_delete.connect(_receiver, sender=Task)  # with one Django reads the rows before it deletes them
        try:
            QUtilities.delete_task_group("g", tasks=True)
        finally:
            pre_delete.disconnect(_receiver, sender=Task)
        assert not Task.objects.exists()
    assert not exploded.exists()


@pytest.mark.parametrize("transactional", [False, True])
def test_a_redelivered_task_counts_as_done_and_its_unsigned_pickle_is_not_loaded(
    strict,
    exploded,
    make_worker,  # noqa: F811
    transactional,
):
    key = uuid.uuid4().hex
    with in_schema(A):
        options = {"transactional": transactional}
        id = QUtilities.add_async_task("tests.tasks.note_where", key, q_options=options)
    broker = get_broker()
    assert broker.fetch("dead", wait=0).leases
    done(id=id)
    write(id, **{name: bomb(exploded) for name in COLUMNS})
    broker.reclaim("dead", running=id)
    work(make_worker())
    assert tasks.notes(key) == [], "it does not run again"
    assert not exploded.exists()
    assert broker.counts().open == 0


def test_a_transactional_task_that_finds_an_unsigned_success_does_not_load_it(strict, exploded):
    """One that is delivered twice at once, so that the worker had not seen the success before."""
    done()
    write(**{name: bomb(exploded) for name in COLUMNS})
    package = build("tests.tasks.add", (1, 2), {"q_options": {"transactional": True}}, schema=A, id=ID)
    with in_schema(A), one_transaction(package) as before:
        assert before is not None and before.result is None
    assert not exploded.exists()


@pytest.mark.parametrize("one_by_one", [False, True])
def test_saving_beside_a_row_that_was_written_loads_nothing_of_it(tenants, exploded, one_by_one):
    done(success=False)
    write(**{name: bomb(exploded) for name in COLUMNS})
    if one_by_one:
        post_save.connect(_receiver, sender=Task)
    try:
        package = build("tests.tasks.add", (1, 2), {}, schema=A, id=ID)
        now = timezone.now()
        save_results.save_or_raise([Outcome(package, True, 3, now, now, 0.0)])
    finally:
        post_save.disconnect(_receiver, sender=Task)
    assert not exploded.exists()


# The restricted unpickler

PLAIN = [
    1,
    "ä",
    b"x",
    1.5,
    True,
    None,
    2j,
    (1, [2, {3: {4}}], frozenset({5})),
    datetime(2026, 1, 2, 3, 4, tzinfo=UTC),
    timedelta(hours=1),
    Decimal("1.10"),
    uuid.UUID(int=7),
    bytearray(b"x"),
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_are_loaded(value):
    assert load_plain(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL)) == value


@pytest.mark.parametrize(
    "pickled",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cbuiltins\ngetattr\n.",
        b"cbuiltins\nbytearray\n(I100000000000\ntR.",
        b"cdatetime\nsys\n.",
        b"\x80\x04\x8c\x08datetime\x8c\x0bsys.modules\x93.",
        b"\x80\x04\x8c\x08builtins\x8c\x0cset.__init__\x93.",
        b"ccopyreg\n_reconstructor\n.",
        b"cdjango.db.models.base\nmodel_unpickle\n.",
        b"cpicklefield.fields\n_ObjectWrapper\n.",
        b"cno.such.module\nname\n.",
    ],
)
def test_nothing_else_is_imported_or_called(pickled):
    with pytest.raises(NotPlain):
        load_plain(pickled)


@pytest.mark.parametrize(("module", "name"), sorted(ALLOWED))
def test_a_pickle_cannot_change_a_plain_class(module, name):
    """By BUILD, which sets attributes of what is on the stack, the class itself say."""
    found = load_plain(f"c{module}\n{name}\n.".encode())
    before = dict(vars(found))
    for state in (b"(N(S'evil'\nS'x'\ndt", b"(S'evil'\nS'x'\nd", b"(N(S'__str__'\nS'x'\ndt"):
        try:
            load_plain(f"c{module}\n{name}\n".encode() + state + b"b.")
        except Exception as error:
            assert not isinstance(error, NotPlain)
    assert dict(vars(found)) == before

"""The package: what a call becomes, what the signature holds together, what is refused and why."""

from __future__ import annotations

import functools
import pickle
import sys
import threading
import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from enum import Enum
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from django_q.conf import Conf
from django_q.core_signing import TimestampSigner
from django_q.signing import BadSignature, SignedPackage

from tenant_q.exceptions import BadPackage, EnqueueError
from tenant_q.lifecycle.outcome_rows import pickled
from tenant_q.package import signing
from tenant_q.package.build import build, deterministic_id
from tenant_q.package.envelope import Found, open_package, seal
from tenant_q.package.option_types import QOptions
from tenant_q.package.options import KEYWORD_OPTIONS, LONGEST, TENANT_OPTIONS
from tenant_q.package.outcome import Outcome, carried_outcome, with_outcome

OPTIONS: dict[str, Any] = {
    "hook": "tests.tasks.hook",
    "group": "g",
    "save": False,
    "sync": True,
    "cached": 60,
    "ack_failure": True,
    "iter_count": 2,
    "iter_cached": True,
    "chain": [("math.floor", (1.5,))],
    "broker": None,
    "cluster": "long",
    "timeout": 5,
}
OURS: dict[str, Any] = {
    "max_deliveries": 1,
    "max_attempts": 0,
    "retry_delay": 0.5,
    "retry_backoff": 1,
    "retry_jitter": 0.5,
    "retry_on": ("builtins.OSError",),
    "no_retry_on": ("builtins.ValueError", "shop.errors.Gone"),
    "expires": datetime(2090, 1, 1, tzinfo=UTC),
    "unique": "a key",
    "unique_until": "start",
    "delay": timedelta(seconds=2),
    "on_commit": True,
    "transactional": True,
    "databases": ["default"],
    "tenant_cache_seconds": 0,
    "priority": -100,
    "rate": "100/m",
    "rate_scope": "site",
}


def package(func: Any = "tests.tasks.add", *args: Any, schema: str = "acme_corp", **keywords: Any) -> Any:
    return build(func, args, keywords, schema=schema)


def top_level() -> None:
    """A function that pickles."""


# Options


def test_every_option_is_tried_here():
    assert set(OPTIONS) == set(KEYWORD_OPTIONS)
    assert set(OURS) == set(TENANT_OPTIONS)


def test_what_a_call_becomes():
    made = package("tests.tasks.add", 1, b=2)
    assert (made.func, made.args, made.kwargs, made.schema) == ("tests.tasks.add", (1,), {"b": 2}, "acme_corp")
    assert len(made.id) == 32
    assert int(made.id, 16)
    assert len(made.name.split("-")) == 4, "four words"
    assert set(made.task) == {"id", "name", "func", "args", "kwargs", "started", "schema_name", "origin"}, (
        "no option but those set"
    )
    assert made.group is None
    assert made.cached is False
    assert not made.is_iter_part


def test_ids_and_names_differ():
    assert len({package().id for _ in range(100)}) == len({package().name for _ in range(100)}) == 100


@pytest.mark.parametrize("option", sorted(OPTIONS))
def test_an_option_as_keyword_and_in_q_options(option):
    value = OPTIONS[option]
    for made in (package(b=2, **{option: value}), package(b=2, q_options={option: value})):
        assert made.option(option) == value
        assert made.kwargs == {"b": 2}, "it does not reach the function"


@pytest.mark.parametrize("option", sorted(OURS))
def test_our_options_are_in_q_options_only(option):
    needed = {"unique": "a key"} if option == "unique_until" else {}
    assert package(q_options={option: OURS[option], **needed}).option(option) == OURS[option]
    as_keyword = package(**{option: OURS[option]})
    assert as_keyword.option(option) is None
    assert as_keyword.kwargs == {option: OURS[option]}, "the function's own keyword"


@pytest.mark.parametrize(
    "name",
    [
        "delay",
        "max_attempts",
        "retry_delay",
        "retry_backoff",
        "on_commit",
        "transactional",
        "name",
        "id",
        "args",
        "schema",
    ],
)
def test_a_functions_own_keyword_reaches_it(name):
    made = build("tests.tasks.add", (), {name: 5}, schema="acme_corp")
    assert made.kwargs == {name: 5}
    assert made.option(name) != 5


def test_q_options_come_before_keywords():
    made = package(group="keyword", q_options={"group": "option"})
    assert (made.group, made.kwargs) == ("option", {"group": "keyword"})


@pytest.mark.parametrize("keywords", [{"task_name": "n"}, {"q_options": {"task_name": "n"}}])
def test_a_name_of_its_own(keywords):
    assert package(**keywords).name == "n"


@pytest.mark.parametrize("q_options", [None, {}])
def test_empty_q_options(q_options):
    assert package(b=1, q_options=q_options).kwargs == {"b": 1}


def test_the_callers_dicts_stay_as_they_are():
    options = {"task_name": "n", "group": "g"}
    keywords = {"b": 1, "timeout": 5, "q_options": options}
    build("tests.tasks.add", (), keywords, schema="acme_corp")
    assert keywords == {"b": 1, "timeout": 5, "q_options": {"task_name": "n", "group": "g"}}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("time_out", "did you mean 'timeout'?"),
        ("max_delivery", "did you mean 'max_deliveries'?"),
        ("task_names", "did you mean 'task_name'?"),
        ("zzz", "known are ack_failure, broker, "),
        (5, "known are "),
    ],
)
def test_an_unknown_option_is_refused(name, words):
    with pytest.raises(EnqueueError, match="q_options has an unknown option") as caught:
        package(q_options={name: 1})
    assert f"'{name}'" in str(caught.value)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("max_deliveries", 0),
        ("max_deliveries", "3"),
        ("max_deliveries", 1.5),
        ("tenant_cache_seconds", -1),
        ("tenant_cache_seconds", "1"),
        ("databases", "default"),
        ("databases", ["nowhere"]),
        ("max_attempts", -1),
        ("max_attempts", True),
        ("retry_delay", -1),
        ("retry_delay", float("nan")),
        ("retry_backoff", 0.9),
        ("delay", -1),
        ("delay", timedelta(seconds=-1)),
        ("delay", "5"),
        ("delay", 10**10),
        ("on_commit", 1),
        ("transactional", "yes"),
        ("priority", 101),
        ("priority", -101),
        ("priority", 1.5),
        ("priority", True),
        ("rate", "0/s"),
        ("rate", "10"),
        ("rate", "10/w"),
        ("rate", "10/s "),
        ("rate", "1.5/s"),
        ("rate", 10),
        ("rate_scope", "cluster"),
    ],
)
def test_a_wrong_value_of_an_option_is_refused(option, value):
    with pytest.raises(EnqueueError, match=rf"q_options\['{option}'\] is .*; it must be "):
        package(q_options={option: value})


@pytest.mark.parametrize("other", [{"save": False}, {"cached": True}, {"cached": 60}])
def test_a_transactional_task_needs_a_row(other):
    package(q_options={"transactional": True, "save": True, "cached": False})
    with pytest.raises(EnqueueError, match=r"'transactional'\] needs a result in the tenant's table"):
        package(q_options={"transactional": True, **other})


@pytest.mark.parametrize(
    ("rate", "seconds"), [("10/s", 0.1), ("100/m", 0.6), ("1000/h", 3.6), ("5/d", 17280), (None, 0)]
)
def test_a_rate_is_a_number_of_starts_in_a_time(rate, seconds):
    assert package(q_options={"rate": rate}).start_interval == seconds


@pytest.mark.parametrize(("delay", "seconds"), [(2, 2.0), (0.5, 0.5), (timedelta(minutes=1), 60.0), (None, 0.0)])
def test_a_delay_is_seconds_or_a_timedelta(delay, seconds):
    assert package(q_options={} if delay is None else {"delay": delay}).delay == seconds


@pytest.mark.parametrize(
    ("option", "value"), [("timeout", "10"), ("timeout", [1]), ("chain", 5), ("iter_count", "2"), ("cached", "yes")]
)
def test_a_wrong_value_of_django_q2s_option_is_refused(option, value):
    for keywords in ({option: value}, {"q_options": {option: value}}):
        with pytest.raises(EnqueueError, match=option):
            package(**keywords)


@pytest.mark.parametrize(
    ("setting", "option", "value"),
    [("cached", "cached", 60), ("sync", "sync", True), ("ack_failures", "ack_failure", True)],
)
def test_options_have_the_settings_defaults(settings, setting, option, value):
    settings.Q_CLUSTER = settings.Q_CLUSTER | {setting: value}
    assert package().option(option) == value
    keywords: dict[str, Any] = {option: False}
    assert package(**keywords).option(option) is False


# Length


@pytest.mark.parametrize(
    ("field", "keywords"),
    [
        ("name", {"task_name": "x"}),
        ("group", {"group": "x"}),
        ("cluster", {"cluster": "x"}),
        ("group", {"q_options": {"group": "x"}}),
    ],
)
def test_too_long_names_are_refused(field, keywords):
    def of(length: int) -> dict[str, Any]:
        return {
            key: {name: text * length for name, text in value.items()} if isinstance(value, dict) else value * length
            for key, value in keywords.items()
        }

    package(**of(LONGEST[field]))
    with pytest.raises(EnqueueError, match=f"The {field} of a task .* has {LONGEST[field] + 1} characters"):
        package(**of(LONGEST[field] + 1))


def test_too_long_functions_are_refused():
    package("x" * 256)
    with pytest.raises(EnqueueError, match=r"The func of a task .* has 257 characters; use at most 256"):
        package("x" * 257)


@pytest.mark.parametrize(
    "keywords",
    [
        {"hook": "x" * 257},
        {"task_name": "nul\0"},
        {"group": "nul\0"},
        {"task_name": "half a pair \ud800"},
        {"group": "half a pair \ud800"},
    ],
    ids=["long hook", "NUL in name", "NUL in group", "surrogate in name", "surrogate in group"],
)
def test_names_that_cannot_be_saved_are_refused(keywords):
    with pytest.raises(EnqueueError):
        package(**keywords)


# Pickling


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: package("tests.tasks.add", threading.Lock()), "tests.tasks.add cannot be enqueued for acme_corp"),
        (lambda: package("tests.tasks.add", b=lambda: 1), "do not pickle"),
        (lambda: package(lambda: 1), "<lambda> cannot be enqueued"),
        (lambda: package("tests.tasks.add", hook=lambda task: 1), "hook do not pickle"),
        (lambda: package("tests.tasks.add", sys), "cannot pickle 'module' object"),
    ],
    ids=["argument", "keyword", "function", "hook", "module"],
)
def test_what_does_not_pickle_is_told_with_its_function(make, words):
    with pytest.raises(EnqueueError) as caught:
        seal(make())
    assert words in str(caught.value)
    assert "pass plain values" in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("own"), RecursionError(), AttributeError()])
def test_whatever_pickling_raises(error):
    class Own:
        def __reduce__(self) -> Any:
            raise error

    with pytest.raises(EnqueueError, match="cannot be enqueued"):
        seal(package("tests.tasks.add", Own()))


def test_functions_travel():
    for func in (top_level, functools.partial(max, 1), "tests.tasks.add", pickle.dumps):
        opened = open_package(seal(package(func)))
        assert repr(opened.func) == repr(func)


@pytest.mark.parametrize(
    ("func", "name"),
    [("math.floor", "math.floor"), (top_level, f"{__name__}.top_level")],
)
def test_the_name_of_a_function(func, name):
    assert package(func).func_name == name


# Signature


def test_a_package_comes_back_as_it_was():
    made = package("tests.tasks.add", 1, [2], b={"c": datetime(2026, 1, 1, tzinfo=UTC)}, group="g", timeout=3)
    assert open_package(seal(made)).task == made.task
    assert open_package(seal(made), Found(schema="acme_corp")).task == made.task


@pytest.mark.seam
def test_a_package_in_another_tenants_queue_is_refused():
    sealed = seal(package(schema="acme_corp"))
    with pytest.raises(
        BadPackage, match="belongs to tenant 'acme_corp' and was found in the queue of 'globex_inc'"
    ) as c:
        open_package(sealed, Found(schema="globex_inc"))
    assert c.value.package is None, "no row is written for it anywhere"


@pytest.mark.parametrize("schema", [None, ""])
def test_a_package_without_a_tenant_is_refused(schema):
    made = package()
    made.task["schema_name"] = schema
    for text in (seal(made), SignedPackage.dumps({k: v for k, v in made.task.items() if k != "schema_name"})):
        with pytest.raises(BadPackage, match="names no tenant"):
            open_package(text, Found(schema="acme_corp"))


@pytest.mark.parametrize("data", [b"", b"bytes", b"x" * 10_000, bytes(range(256))])
@pytest.mark.parametrize("compress", [False, True])
def test_it_signs_as_django_q2_does(monkeypatch, data, compress):
    """To the last byte, so that each opens what the other signed; the key is only derived less often."""
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.5)
    texts = set()
    for key, name in [("a key", "a name"), ("a key", "another name"), ("another key", "a name"), ("a key", "a name")]:
        monkeypatch.setattr(Conf, "SECRET_KEY", key)
        monkeypatch.setattr(Conf, "PREFIX", name)
        theirs = TimestampSigner(key=key, salt=name).sign_object(data, serializer=_AsItIs, compress=compress)
        assert signing.sign(data, compress=compress) == theirs
        assert signing.unsign(theirs) == data
        assert abs(signing.size_of(theirs) - len(data)) <= 2
        texts.add(theirs)
    assert len(texts) == 3


class _AsItIs:
    @staticmethod
    def dumps(data: bytes) -> bytes:
        return data


@pytest.mark.parametrize("place", range(0, 60, 7))
def test_every_byte_of_the_text_is_signed(place):
    text = signing.sign(b"x" * 20, compress=False)
    changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
    with pytest.raises(BadSignature):
        signing.unsign(changed)


@pytest.mark.parametrize("text", ["", ":", "::", "a", "a:b", "a:b:", "a:b:c", ":b:c", "a::c", "ä:b:ö"])
def test_what_is_not_signed_is_refused(text):
    with pytest.raises(BadSignature):
        signing.unsign(text)


def test_each_opens_what_the_other_signed():
    made = package()
    assert SignedPackage.loads(seal(made)) == made.task
    assert open_package(SignedPackage.dumps(made.task)).task == made.task


@pytest.mark.parametrize("name", ["SECRET_KEY", "PREFIX"])
def test_a_package_signed_with_another_key_or_name_is_refused(monkeypatch, name):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(Conf, name, "another")
        sealed = seal(package())
        open_package(sealed)
    with pytest.raises(BadPackage, match="signature does not fit this project's SECRET_KEY and Q_CLUSTER") as caught:
        open_package(sealed)
    assert caught.value.package is None


def test_an_edited_package_is_refused():
    sealed = seal(package())
    other, _, _ = seal(package(schema="globex_inc")).partition(":")
    body, _, rest = sealed.partition(":")
    edited = [
        f"{other}:{rest}",
        sealed[:-1],
        sealed + "A",
        body,
        "",
        ":",
        "::",
        f"{body[:-2]}:{rest}",
        f".{sealed}",
        "ä",
    ]
    for text in edited:
        with pytest.raises(BadPackage, match="signature does not fit"):
            open_package(text)


@pytest.mark.parametrize("held", [5, None, [], {}, {"id": 1, "schema_name": "acme_corp"}, "text"])
def test_signed_but_no_task(held):
    with pytest.raises(BadPackage, match="holds no task"):
        open_package(SignedPackage.dumps(held))


def test_signed_but_no_pickle():
    text = TimestampSigner(key=Conf.SECRET_KEY, salt=Conf.PREFIX).sign("bm90IGEgcGlja2xl")
    with pytest.raises(BadPackage, match="it cannot be unpickled") as caught:
        open_package(text)
    assert caught.value.package is None


# Classes that are gone


class Gone:
    """A class of a module that a later release no longer has."""

    def __init__(self, value: int) -> None:
        self.value = value

    def method(self) -> int:
        return self.value


class GoneList(list[int]):
    """Unpickled by `extend()`."""


class GoneDict(dict[str, int]):
    """Unpickled by setting items."""


class GoneEnum(Enum):
    """Unpickled by a call."""

    ONE = 1


class GoneTuple(NamedTuple):
    """Unpickled by `__new__`."""

    value: int


def gone_function(*_: Any) -> None:
    """A function of such a module."""


GONE = (Gone, GoneList, GoneDict, GoneEnum, GoneTuple, gone_function)


@pytest.fixture
def old_release(monkeypatch):
    module = ModuleType("an_old_release")
    for thing in GONE:
        monkeypatch.setattr(thing, "__module__", module.__name__)
        setattr(module, thing.__name__, thing)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


@pytest.mark.parametrize(
    "value",
    [
        Gone(1),
        Gone,
        gone_function,
        {"deep": [(Gone(1),)]},
        functools.partial(gone_function, Gone(1)),
        GoneEnum.ONE,
        GoneTuple(1),
        pytest.param(GoneList([1])),
        pytest.param(GoneDict(a=1)),
        pytest.param(Gone(1).method),
    ],
    ids=["instance", "class", "function", "nested", "partial", "enum", "tuple", "list", "dict", "method"],
)
def test_a_package_of_a_removed_class_is_refused_with_its_readable_rest(old_release, monkeypatch, value):
    made = package("tests.tasks.add", value, b=value, group="g", task_name="n", save=False, hook=gone_function)
    sealed = seal(made)
    open_package(sealed)
    monkeypatch.delitem(sys.modules, old_release.__name__)
    with pytest.raises(
        BadPackage, match=r"cannot be unpickled: No module named 'an_old_release'; deploy the class"
    ) as c:
        open_package(sealed, Found(schema="acme_corp"))
    rest = c.value.package
    assert (rest.id, rest.name, rest.schema, rest.group) == (made.id, "n", "acme_corp", "g")
    assert (rest.func, rest.args, rest.kwargs, rest.option("hook")) == ("tests.tasks.add", (), {}, None)
    seal(rest)


@pytest.mark.parametrize("func", [Gone, gone_function, GoneEnum.ONE])
def test_a_package_of_a_removed_function(old_release, monkeypatch, func):
    made = package(Gone)
    made.task["func"] = func
    sealed = seal(made)
    monkeypatch.delattr(old_release, func.__name__ if hasattr(func, "__name__") else "GoneEnum")
    with pytest.raises(BadPackage) as caught:
        open_package(sealed)
    assert (caught.value.package.func, caught.value.package.id) == ("?", made.id)


def test_the_rest_of_a_package_in_a_wrong_queue_is_not_given_out(old_release, monkeypatch):
    sealed = seal(package("tests.tasks.add", Gone(1), schema="acme_corp"))
    monkeypatch.delitem(sys.modules, old_release.__name__)
    with pytest.raises(BadPackage) as caught:
        open_package(sealed, Found(schema="globex_inc"))
    assert caught.value.package is None


# Deterministic ids


def test_ids_of_the_same_parts_are_the_same():
    assert deterministic_id("fire", "acme_corp", 1, "2026-01-01") == deterministic_id(
        "fire", "acme_corp", "1", "2026-01-01"
    )
    assert len(deterministic_id("x")) == 32
    assert int(deterministic_id("x"), 16)


def test_ids_are_the_same_in_every_release():
    """Two releases run side by side during a roll-out; a fire is one task all the same."""
    assert deterministic_id("fire", "acme_corp", 7, "2026-01-01T00:00:00+00:00") == "c0aab093126596ce13880ec8663417da"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("fire", "acme_corp", 1), ("fire", "globex_inc", 1)),
        (("fire", "acme_corp", 1), ("fire", "acme_corp", 2)),
        (("ab", "c"), ("a", "bc")),
        (("a", ""), ("a",)),
        (("a", "b"), ("b", "a")),
    ],
)
def test_ids_of_other_parts_differ(one, other):
    assert deterministic_id(*one) != deterministic_id(*other)


def test_a_given_id_is_the_packages():
    assert build("tests.tasks.add", (), {}, schema="acme_corp", id="f" * 32).id == "f" * 32


# Outcomes that travel


def test_an_outcome_travels_in_its_package():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    outcome = Outcome(package("tests.tasks.add", 1, group="g"), True, [1, 2], now, now, 0.25, attempt=2)
    travelled = open_package(seal(with_outcome(outcome, put_off=3)))
    assert travelled.option("put_off") == 3
    again = carried_outcome(travelled)
    assert again is not None
    for name in ("success", "result", "started", "stopped", "seconds", "attempt", "death"):
        assert getattr(again, name) == getattr(outcome, name)
    assert again.package.option("outcome") is None
    assert again.package.task == outcome.package.task | {"put_off": 3}


def test_a_failure_travels_without_its_exception():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    outcome = Outcome(package(), False, "text", now, now, 0.0, death="ValueError", error=ValueError(threading.Lock()))
    again = carried_outcome(open_package(seal(with_outcome(outcome, put_off=1))))
    assert again is not None
    assert (again.success, again.result, again.death, again.error) == (False, "text", "ValueError", None)


def test_most_packages_carry_no_outcome():
    assert carried_outcome(package()) is None


def test_a_pickle_is_what_django_q2s_columns_hold():
    from picklefield.fields import dbsafe_decode

    values: list[Any] = [(1, "x"), {"a": None}, [], None, "text"]
    for value in values:
        assert dbsafe_decode(b64encode(pickled(value)).decode()) == value


def test_type_checkers_know_every_option():
    """Those of an iter and of a chain are set by tenant_q itself."""
    known = {*KEYWORD_OPTIONS, *TENANT_OPTIONS, "task_name"}
    assert set(QOptions.__annotations__) == known - {"iter_count", "iter_cached", "chain"}

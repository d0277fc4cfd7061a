"""Names of functions come from the code, never from data."""

from __future__ import annotations

import functools
import math
import operator
import pickle
from typing import Any

import pytest

from tenant_q.package.functions import NOT_A_PATH, counted_name, is_path, name_of, stored_name
from tenant_q.package.package import Package

HERE = __name__
IBAN = "DE89 3704 0044 0532 0130 00"


def plain(*args: Any) -> None: ...


def wrap(func: Any) -> Any:
    @functools.wraps(func)
    def wrapped(*args: Any) -> Any:
        return func(*args)

    return wrapped


@wrap
def decorated() -> None: ...


@functools.lru_cache
def remembered(value: int) -> int:
    return value


class Account:
    def __init__(self, iban: str = IBAN) -> None:
        self.iban = iban

    def __repr__(self) -> str:
        return f"<Account {self.iban}>"

    def book(self, amount: Any = 0, x: Any = None) -> None: ...

    book_twice = functools.partialmethod(book, 2)

    @classmethod
    def open(cls) -> None: ...

    @staticmethod
    def check() -> None: ...

    def __call__(self) -> None: ...


class Named(Account):
    """Its instances look like functions that are named after data."""

    def __init__(self, name: Any, module: Any = HERE) -> None:
        super().__init__()
        self.__name__ = self.__qualname__ = name
        self.__module__ = module


class Evil:
    """Whatever is asked of it breaks."""

    def __getattribute__(self, name: str) -> Any:
        raise RuntimeError(IBAN)

    def __call__(self) -> None: ...


def nested() -> Any:
    def inner() -> None: ...

    return inner


# The function, its name, and whether the name alone stands for it: what a row must hold to be run again.
NAMES = [
    ("math.floor", "math.floor", True),
    (plain, f"{HERE}.plain", True),
    (decorated, f"{HERE}.decorated", True),
    (remembered, f"{HERE}.remembered", True),
    (math.floor, "math.floor", True),
    (len, "builtins.len", True),
    (pickle.dumps, "_pickle.dumps", True),
    (Account, f"{HERE}.Account", True),
    (Account.check, f"{HERE}.Account.check", True),
    (Account.open, f"{HERE}.Account.open", True),
    (Named.open, f"{HERE}.Named.open", True),
    (str.upper, "builtins.str.upper", True),
    (dict.fromkeys, "builtins.dict.fromkeys", True),
    (nested, f"{HERE}.nested", True),
    (nested(), f"{HERE}.nested.<locals>.inner", False),
    (lambda: None, f"{HERE}.<lambda>", False),
    (Account().book, f"{HERE}.Account.book", False),
    (Account().book_twice, f"{HERE}.Account.book", False),
    (Account(), f"{HERE}.Account", False),
    (functools.partial(plain, IBAN), f"{HERE}.plain", False),
    (functools.partial(IBAN.replace, IBAN), "builtins.str.replace", False),
    (functools.partial(functools.partial(Account().book, IBAN), x=IBAN), f"{HERE}.Account.book", False),
    (functools.partial(Account()), f"{HERE}.Account", False),
    (IBAN.replace, "builtins.str.replace", False),
    ([IBAN].append, "builtins.list.append", False),
    ((5).__add__, "builtins.int.__add__", False),
    (operator.methodcaller("book", IBAN), "operator.methodcaller", False),
    (operator.itemgetter(IBAN), "operator.itemgetter", False),
    (Named(IBAN), f"{HERE}.Named", False),
    (Named("plain"), f"{HERE}.Named", False),
    (Named(5), f"{HERE}.Named", False),
    (Named("x", IBAN), f"{HERE}.Named", False),
    (Evil(), f"{HERE}.Evil", False),
]


@pytest.mark.parametrize(("func", "name", "stands_for_it"), NAMES, ids=[str(n) for n in range(len(NAMES))])
def test_a_name_comes_from_the_code(func, name, stands_for_it):
    assert name_of(func) == counted_name(func).replace(NOT_A_PATH, name) == Package({"func": func}).func_name == name
    stored = stored_name(func)
    assert (stored == name) == stands_for_it
    assert stored.startswith(name) and IBAN not in stored
    assert is_path(stored) == stands_for_it


def test_a_function_that_is_named_after_data():
    def func() -> None: ...

    func.__qualname__ = func.__name__ = f"import of {IBAN}"
    assert name_of(func) == "builtins.function"
    func.__qualname__, func.__module__ = "func", IBAN
    assert name_of(func) == "builtins.function"


def test_a_numpy_like_callable():
    class ufunc:
        __name__ = "add"

        def __call__(self) -> None: ...

    assert IBAN not in name_of(ufunc()) and name_of(ufunc()).endswith("ufunc")


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        IBAN,
        f"shop.tasks.f({IBAN!r})",
        "a..b",
        ".a",
        "a.",
        "1.a",
        "a b",
        "a\nb",
        "<x>",
        "a" * 257,
        "a,b",
        "a.b ",
    ],
)
def test_a_text_that_is_no_path_is_counted_under_one_name(text):
    assert counted_name(text) == NOT_A_PATH and not is_path(text)
    assert name_of(text) == stored_name(text) == text


@pytest.mark.parametrize("text", ["f", "math.floor", "shop.tasks.Account.open", "größe.tasks.f", "a" * 256])
def test_a_path_is_counted_under_its_own(text):
    assert counted_name(text) == text and is_path(text)

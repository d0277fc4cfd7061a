"""A schedule's arguments from text: literals, or `BadSchedule` with the place."""

from __future__ import annotations

import ast
import keyword
import sys
import time
import warnings

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tenant_q.exceptions import BadSchedule
from tenant_q.schedules.arguments import MAX_ARGUMENTS, parse_arguments


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        (None, None, ((), {})),
        ("", "", ((), {})),
        (" \n\t", "\n ", ((), {})),
        ("1", None, ((1,), {})),
        ("  1, 2  ", None, ((1, 2), {})),
        ("\n1, 2,\n", None, ((1, 2), {})),
        ("(1, 2)", None, ((1, 2), {})),
        ("(1, 2),", None, (((1, 2),), {})),
        ("()", None, ((), {})),
        ("[1, 2]", None, (([1, 2],), {})),
        ("{'a': 1}", None, (({"a": 1},), {})),
        ("None", None, ((None,), {})),
        ("'it''s', b'x', -1.5, 2+3j, {1}, set(), ...", None, (("its", b"x", -1.5, 2 + 3j, {1}, set(), ...), {})),
        ("1, 2  # two", None, ((1, 2), {})),
        ("(1,\r\n2)", None, ((1, 2), {})),
        (None, "{'a': 1}", ((), {"a": 1})),
        (None, "  {'a b': [1, {2: 3}]} ", ((), {"a b": [1, {2: 3}]})),
        (None, "{}", ((), {})),
        (None, "({'a': 1})", ((), {"a": 1})),
        (None, "a=1, b='x'", ((), {"a": 1, "b": "x"})),
        (None, "a=1,\n  b=(2, None),", ((), {"a": 1, "b": (2, None)})),
        (None, "a=1  # one", ((), {"a": 1})),
        (None, "größe=1", ((), {"größe": 1})),
        ("1", "q_options={'group': 'x'}", ((1,), {"q_options": {"group": "x"}})),
    ],
)
def test_arguments(args, kwargs, expected):
    assert parse_arguments(args, kwargs) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1, 'a', os.system('x')", "column 9: this is not a literal"),
        ("'ä', [1, {'k': call()}]", "column 16: this is not a literal"),
        ("(1,\n  name)", "line 2, column 3: this is not a literal"),
        ("1 +", "column 4: invalid syntax"),
        ("1, (2", "column 4: '(' was never closed"),
        ("x=1", "column 2: "),
        ("1 + 1", "column 1: this is not a literal"),
        ("f'{x}'", "not a literal"),
        ("*[1], 2", "column 1: "),
        ("{[]: 1}", "column 1: this is not a literal"),
        ("{**{'a': 1}}", "not a literal"),
        ("lambda: 1", "not a literal"),
        ("[x for x in (1,)]", "not a literal"),
        ("__import__('os')", "not a literal"),
        ("1; 2", "column 2"),
        ("1\n2", "line 2, column 1"),
        ("\x00", "null byte"),
        ("\ud800", "surrogates"),
    ],
)
def test_bad_arguments_name_field_and_place(text, words):
    with pytest.raises(BadSchedule) as caught:
        parse_arguments(text, None)
    assert str(caught.value).startswith("arguments do not parse as Python literals")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a=1, b=call()", "column 8: this is not a literal"),
        ("a=1,\n b=[1, name]", "line 2, column 8: this is not a literal"),
        ("'é', a=1", "column 1: a value has no name"),
        ("a=1, **{'b': 2}", "column 8: ** is not allowed"),
        ("a=1, a=2", "column 6: the name was given before"),
        ("**{}", "** is not allowed"),
        ("*[1]", "a value has no name"),
        ("a:=1", "a value has no name"),
        ("x for x in y", "column 1: a value has no name"),
        ("{1: 2}", "column 2: every name must be a string"),
        ("{'a': 1, None: 2}", "column 10: every name must be a string"),
        ("{**{}}", "every name must be a string"),
        ("{'a': name}", "column 7: this is not a literal"),
        ("{'a' 1}", "column 2"),
        ("{'a': 1", "column 1: '{' was never closed"),
        ("[('a', 1)]", "a dict or name=value pairs"),
        ("5", "a dict or name=value pairs"),
        ("dict(a=1)", "a dict or name=value pairs"),
        ("a=1) or g(b=2", "a dict or name=value pairs"),
        ("a=1)(b=2", "a dict or name=value pairs"),
        ("a=1), f(b=2", "a dict or name=value pairs"),
        ("a=1)\nimport os\nf(b=2", "line 2"),
        ("a=1)  #", "unmatched ')'"),
        ("a=[1", "does not match opening parenthesis '[' on line 1"),
        ("a=", "column"),
        ("a=1 b=2", "column"),
        ("1=2", "column 1"),
        ("None=2", "column 1"),
    ],
)
def test_bad_keyword_arguments_name_field_and_place(text, words):
    with pytest.raises(BadSchedule) as caught:
        parse_arguments(None, text)
    assert str(caught.value).startswith("keyword arguments do not parse as Python literals")
    assert words in str(caught.value)


BOMBS = {
    "brackets": lambda n: "[" * n + "]" * n,
    "open": lambda n: "[1," * n,
    "minus": lambda n: "-" * n + "1",
    "not": lambda n: "not " * n + "1",
    "sum": lambda n: "1" + "+1" * n,
    "attributes": lambda n: "a" + ".a" * n,
    "calls": lambda n: "a" + "()" * n,
    "dicts": lambda n: "{1:" * n + "1" + "}" * n,
    "lambdas": lambda n: "lambda:" * n + "1",
    "conditions": lambda n: "1if 1 else " * n + "1",
    "power": lambda n: "1**" * n + "1",
    "digits": lambda n: "9" * (5000 + n),
}


@pytest.mark.parametrize("size", [250, 3_000, 30_000, 200_000])
@pytest.mark.parametrize("bomb", BOMBS)
def test_malicious_texts_are_bad_and_quick(bomb, size):
    text = BOMBS[bomb](size)
    begun = time.process_time()
    for args, kwargs in ((text, None), (None, text), (None, f"a={text}"), (None, f"{{'a': {text}}}")):
        with pytest.raises(BadSchedule):
            parse_arguments(args, kwargs)
    assert time.process_time() - begun < 10, "of the processor's seconds; what is quick takes hundredths"


def test_too_long_a_text_is_not_even_parsed():
    with pytest.raises(BadSchedule, match=f"keyword arguments are longer than {MAX_ARGUMENTS} characters"):
        parse_arguments(None, "a=" + "1" * MAX_ARGUMENTS)


def test_a_call_in_the_text_is_never_made():
    touched: list[int] = []
    sys.modules[__name__].touch = touched.append
    for text in (f"__import__('{__name__}').touch(1)", "touch(1)", f"__import__('sys').modules['{__name__}'].touch(1)"):
        for args, kwargs in ((text, None), (None, text), (None, f"a={text}"), (None, f"{{'a': {text}}}")):
            with pytest.raises(BadSchedule):
                parse_arguments(args, kwargs)
    assert touched == []


def test_odd_numbers_fill_no_log():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(BadSchedule):
            parse_arguments("1if 1 else 2", "a='\\d', b=1if 1 else 2")
        assert parse_arguments(None, r"a='\d'") == ((), {"a": r"\d"})
    assert caught == []


source_like = st.lists(
    st.sampled_from(
        [
            "a",
            "b",
            "=",
            ",",
            "(",
            ")",
            "[",
            "]",
            "{",
            "}",
            ":",
            "*",
            "**",
            "1",
            "-",
            "'x'",
            '"',
            "\n",
            " ",
            "#",
            "\\",
            "f'",
            "ä",
        ]
    ),
    max_size=30,
).map("".join)


@settings(max_examples=400, deadline=None)
@given(st.none() | st.text() | source_like, st.none() | st.text() | source_like)
@example("1if 1 else 2", "\x0c a=1")
@example("\x1c", "\x85")
def test_any_text_is_understood_or_bad(args_text, kwargs_text):
    try:
        args, kwargs = parse_arguments(args_text, kwargs_text)
    except BadSchedule as error:
        assert "arguments" in str(error)
    else:
        assert isinstance(args, tuple)
        assert all(isinstance(name, str) for name in kwargs)


literals = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=4)
    ),
    max_leaves=12,
)
names = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))


@settings(max_examples=150, deadline=None)
@given(st.lists(literals, max_size=4), st.dictionaries(names, literals, max_size=4))
def test_what_was_written_is_read(args, kwargs):
    args_text = repr(tuple(args))
    assert parse_arguments(args_text, repr(kwargs)) == (tuple(args), kwargs)
    pairs = ", ".join(f"{name}={value!r}" for name, value in kwargs.items())
    assert parse_arguments(args_text, pairs) == (ast.literal_eval(args_text), kwargs)

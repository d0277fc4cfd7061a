"""Build the settings of tenant_q from environment variables.

A settings module may import this: nothing here reads Django's settings or imports a model.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from redis.connection import parse_url

from tenant_q.conf.setting import Setting
from tenant_q.conf.table import Q_CLUSTER, TENANT_Q
from tenant_q.exceptions import ConfigurationError
from tenant_q.support.hints import did_you_mean

PREFIX = "TENANT_Q_"
REDIS = "REDIS_URL"

_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_DIGITS = {"1": True, "0": False}
# Keys that choose another broker than Redis, or its options.
_OTHER_BROKERS = frozenset(("django_redis", "broker_class", "sqs", "iron_mq", "mongo", "mongo_db", "bulk", "orm"))
# Keys whose items are compared with `DATABASES`, which a settings module may define later. The system checks do that.
_CHECKED_LATER = frozenset(("databases", "open_aliases"))


class Settings(NamedTuple):
    """The settings of tenant_q that an environment describes.

    Attributes:
        q_cluster: The value of `Q_CLUSTER`.
        tenant_q: The value of `TENANT_Q`.
    """

    q_cluster: dict[str, Any]
    tenant_q: dict[str, Any]


def settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Build `Q_CLUSTER` and `TENANT_Q` from `REDIS_URL` and the variables whose names begin with `TENANT_Q_`.

    A variable is the name of a key of either setting in capitals: `TENANT_Q_WORKERS` is `Q_CLUSTER["workers"]`, and
    `TENANT_Q_LEASE` is `TENANT_Q["lease"]`. A key without a variable is not set, so it has its default.

    Args:
        environ: The variables; None for those of the process.

    Returns:
        Both settings, for `Q_CLUSTER, TENANT_Q = environment.settings()`.

    Raises:
        ConfigurationError: `REDIS_URL` is missing or no URL of Redis, or a variable is unknown, empty or has a wrong
            value. The message describes every problem, and shows no secret.
    """
    given = dict(os.environ if environ is None else environ)
    built, problems = Settings({}, {}), _redis_problems(given.get(REDIS))
    if not problems:
        built.q_cluster["redis"] = given[REDIS]
    for name in sorted(name for name in given if name.upper().startswith(PREFIX)):
        setting = _KEYS.get(name)
        if setting is None:
            problems.append(_unknown(name))
            continue
        try:
            value = _value(name, setting, given[name])
        except ConfigurationError as error:
            problems.append(str(error))
            continue
        place = built.q_cluster if setting.place == "Q_CLUSTER" else built.tenant_q
        place[setting.key] = value
    if problems:
        raise ConfigurationError("\n".join(problems))
    return built


def _names(settings: Mapping[str, Setting]) -> dict[str, Setting]:
    """Return those settings that a variable can set, by the names of their variables."""
    return {
        PREFIX + key.upper(): setting
        for key, setting in settings.items()
        if key != "redis" and key not in _OTHER_BROKERS and not setting.no_effect
    }


_KEYS: Mapping[str, Setting] = _names(Q_CLUSTER) | _names(TENANT_Q)


# Names


def _unknown(name: str) -> str:
    """Return the problem with a variable that sets no key."""
    key = name[len(PREFIX) :].lower()
    if key == "redis":
        return f"The environment variable {name} is not read; set {REDIS} instead."
    if key in _OTHER_BROKERS:
        return (
            f"The environment variable {name} is not read, since the broker is on Redis; remove it, or set "
            f"Q_CLUSTER['{key}'] in the settings module."
        )
    if key in Q_CLUSTER and Q_CLUSTER[key].no_effect:
        return f"The environment variable {name} would have no effect: {Q_CLUSTER[key].no_effect}; remove it."
    return f"The environment variable {name} is unknown: {did_you_mean(name.upper(), _KEYS)}"


# Values


def _redis_problems(url: str | None) -> list[str]:
    """Return what is wrong with the URL of Redis, without showing it, since it may have a password."""
    way_out = "set it to the URL of Redis or Valkey, such as redis://localhost:6379/0"
    if not url:
        return [f"The environment variable {REDIS} is {'not set' if url is None else 'empty'}; {way_out}."]
    try:
        parts: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]
    except ValueError as error:
        return [f"The environment variable {REDIS} cannot be used ({error}); {way_out}."]
    if not parts.keys() & {"host", "path"}:
        return [f"The environment variable {REDIS} names no host; {way_out}."]
    database = re.sub(r"[?#].*", "", url).partition("://")[2].partition("/")[2]
    if not url.startswith("unix:") and not re.fullmatch(r"\d*", database):  # the client would use database 0
        return [f"The environment variable {REDIS} names a database that is no number; {way_out}."]
    return []


def _value(name: str, setting: Setting, text: str) -> Any:
    """Return the value that a variable gives a key.

    Raises:
        ConfigurationError: The text is empty or describes no such value. The message names the variable.
    """
    if not text.strip():
        raise ConfigurationError(f"The environment variable {name} is empty; give it a value, or remove it.")
    parse, wanted = _parser(setting)
    try:
        value = parse(text.strip())
    except ValueError:
        shown = "a secret, which is not shown" if setting.is_secret else repr(text)
        raise ConfigurationError(f"The environment variable {name} is {shown}; it must be {wanted}.") from None
    checked = () if setting.key in _CHECKED_LATER else setting.problems(f"The environment variable {name}", value)
    for problem in checked:
        raise ConfigurationError(problem)
    return value


def _parser(setting: Setting) -> tuple[Callable[[str], Any], str]:
    """Return how the text of a key's variable is read, and what it must be, in words for a message."""
    types = set(setting.types)
    if dict in types:
        return _json(setting.types), "JSON: " + " or ".join(sorted({_JSON[each] for each in types}))
    if list in types:
        return _items, "names with commas between them"
    if str in types:
        return str, "a text"
    if types == {bool}:
        return _flag(_WORDS | _DIGITS), "true or false"
    if bool in types:
        return _flag(_WORDS, otherwise=int), "true, false or a whole number"
    if float in types:
        return _number, "a number, such as 15 or 0.5"
    return int, "a whole number"


_JSON: Mapping[type, str] = {dict: "an object", list: "a list", tuple: "a list"}


def _json(types: tuple[type, ...]) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = json.loads(text)
        if not isinstance(value, types):
            raise ValueError(text)
        return value

    return parse


def _items(text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        raise ValueError(text)
    return items


def _flag(words: Mapping[str, bool], *, otherwise: Callable[[str], Any] | None = None) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if text.lower() in words:
            return words[text.lower()]
        if otherwise is None:
            raise ValueError(text)
        return otherwise(text)

    return parse


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)

"""Build the package of one call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from django.utils import timezone
from django_q.humanhash import uuid

from tenant_q.exceptions import WrongArgument
from tenant_q.package import declarations, enqueueing
from tenant_q.package.misplaced import refuse_misplaced
from tenant_q.package.options import (
    KEYWORD_OPTIONS,
    fill_defaults,
    name_errors,
    refuse_too_long,
    refuse_unknown,
    refuse_wrong_values,
    take_q_options,
)
from tenant_q.package.package import CODE, Package
from tenant_q.support.call_checks import is_function, is_name, shown
from tenant_q.support.tracing import carry_span


def build(
    func: Any,
    args: tuple[Any, ...],
    keywords: Mapping[str, Any],
    *,
    schema: str,
    id: str | None = None,
    origin: str | None = CODE,
    tenant: str | None = None,
) -> Package:
    """Build the package of one call.

    Args:
        func: A dotted path, or a callable that pickles.
        args: The positional arguments of the call.
        keywords: The keywords of the call, with Django-Q2's options among them or in `q_options`.
        schema: The tenant's schema name.
        id: A deterministic id of 32 hexadecimal digits; None for a new one.
        origin: Who enqueues the package; None if that is not known.
        tenant: The tenant's key; None if it is to be looked up later.

    Raises:
        EnqueueError: An option is unknown or has a wrong value, or a name is too long to be saved.
        WrongArgument: `func` is neither a function nor a path, or the name of the task is not a text.
    """
    kwargs = dict(keywords)
    options = take_q_options(kwargs)
    refuse_unknown(options)
    options["task_name"] = kwargs.pop("task_name", None) or options.get("task_name")
    for option in KEYWORD_OPTIONS:
        if option not in options and option in kwargs:
            options[option] = kwargs.pop(option)
    return build_call(func, args, kwargs, options, schema=schema, id=id, origin=origin, tenant=tenant)


def build_call(
    func: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    schema: str,
    id: str | None = None,
    origin: str | None = CODE,
    tenant: str | None = None,
) -> Package:
    """Return the package of one call whose options are apart from the function's keywords. Raises as `build`.

    An option that the call does not give has the value that the function declares, or else that of the settings.

    Args:
        func: A dotted path, the name of a declared task, or a callable that pickles.
        args: The positional arguments of the call.
        kwargs: The keyword arguments of the call.
        options: The options of the task.
        schema: The tenant's schema name.
        id: A deterministic id of 32 hexadecimal digits; None for a new one.
        origin: Who enqueues the package; None if that is not known.
        tenant: The tenant's key; None if it is to be looked up later.
    """
    if not is_function(func):
        raise WrongArgument(
            f"The function of a task to enqueue is {shown(func)}; pass a function, or its dotted path such as "
            "'shop.tasks.send'."
        )
    name = options.get("task_name")
    words, fresh = uuid() if id is None or not name else ("", "")
    name = name or words
    if not is_name(name):
        raise WrongArgument(f"The task_name of a task to enqueue is {shown(name)}; it must be a text.")
    task: dict[str, Any] = {"id": id or fresh, "name": str(name), "func": func, "args": args}
    task |= {option: value for option, value in options.items() if option != "task_name"}
    declaration = declarations.find(func)
    if declaration is not None:
        task["func"] = declaration.name
    called = func if callable(func) else declaration and declaration.func
    if kwargs and called:
        refuse_misplaced(called, kwargs)
    fill_defaults(task, declaration.options if declaration else {})
    refuse_wrong_values(task)
    refuse_too_long(task)
    name_errors(task)
    task["kwargs"] = dict(kwargs)
    task["started"] = timezone.now()
    enqueueing.settle(task)
    task["schema_name"] = schema
    if tenant is not None:
        task["tenant"] = tenant
    if origin is not None:
        task["origin"] = origin
    carry_span(task)
    return Package(task)


def deterministic_id(*parts: object) -> str:
    """Return the id with which the package of a fire, a link or an iter part is built; it depends only on `parts`."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

"""Enqueue calls, iters and chains, or run them in this process if they are `sync`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from django_q.humanhash import uuid

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.lifecycle import chain_ids, chains, hooks, iters, push, settle
from tenant_q.lifecycle.execute import execute
from tenant_q.package.build import build, build_call
from tenant_q.package.envelope import open_package
from tenant_q.package.package import CODE, Package
from tenant_q.support.call_checks import require
from tenant_q.tenancy import in_schema, public_schema, task_address, task_schema, verify


def submit(
    func: Any,
    args: tuple[Any, ...],
    keywords: dict[str, Any],
    *,
    schema: str | None = None,
    id: str | None = None,
    tenant: str | None = None,
) -> str:
    """Submit one call of a tenant: enqueue it, or run it in this process if it is `sync`.

    Args:
        func: The function, or its dotted path.
        args: Its positional arguments.
        keywords: Its keyword arguments, and the options of the task.
        schema: The tenant's schema; None for the current one.
        id: A deterministic id, with which the call is enqueued only once; None for a new one.
        tenant: The key of the tenant where the caller knows it.

    Returns:
        The id of the task; with the option `unique`, of the task that has the key and waits or runs already.

    Raises:
        NoTenant: No tenant is current and none is named.
        UnknownTenant: No tenant has the schema name.
        EnqueueError: A value does not pickle, or an option has a wrong value.
        BrokerError: The broker does not answer.
        Exception: In sync mode, the error that the task raised.
    """
    schema, own = task_address(schema)
    package = build(func, args, keywords, schema=schema, id=id, tenant=own if tenant is None else tenant)
    return _send([package], once=id is not None)


def submit_call(
    func: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    schema: str | None = None,
    tenant: str | None = None,
) -> str:
    """Enqueue one call whose options are apart from its keywords. Returns and raises as `submit`.

    Args:
        func: The function, or its dotted path.
        args: Its positional arguments.
        kwargs: Its keyword arguments.
        options: The options of the task.
        schema: The tenant's schema; None for the current one.
        tenant: The key of the tenant where the caller knows it.
    """
    schema, own = task_address(schema)
    key = own if tenant is None else tenant
    return _send([build_call(func, args, kwargs, options, schema=schema, tenant=key)], once=False)


def submit_package(package: Package) -> str:
    """Submit a package that is built: enqueue it, or run it in this process if it is `sync`. Raises as `submit`."""
    return _send([package], once=False)


def submit_parts(parts: Sequence[Package]) -> str:
    """Submit the parts of an iter that are built, in bulk. Returns and raises as `submit_iter`."""
    _send(parts, once=True)
    return str(parts[0].group)


def submit_iter(func: Any, args_iter: Sequence[Any], keywords: dict[str, Any], *, schema: str | None = None) -> str:
    """Submit an iter: enqueue one package for each set of arguments, in bulk. Raises as `submit`.

    Args:
        func: The function, or its dotted path.
        args_iter: The arguments of each part: a tuple, or a single argument.
        keywords: The keyword arguments of all parts, and the options of the iter.
        schema: The tenant's schema; None for the current one.

    Returns:
        The id of the iter, which its result will have.
    """
    require("add_async_tasks_from_iter", func=func, args_iter=args_iter)
    return submit_parts(iters.iter_parts(func, args_iter, keywords, task_schema(schema), CODE))


def submit_chain(
    chain: Sequence[Any], *, schema: str | None = None, pass_result: bool = False, hook: Any = None, **options: Any
) -> str:
    """Submit a chain: enqueue its first link; the others follow it one by one. Raises as `submit`.

    Args:
        chain: The links: tuples `(func, args, kwargs)`, of which the last two are optional.
        schema: The tenant's schema; None for the current one.
        pass_result: Whether each link gets the result of the one before it as its first argument.
        hook: A function, or its path, that is called once when the chain ends; None for none.
        **options: `group`, `cached`, `sync` and `broker` of every link.

    Returns:
        The id of the group.
    """
    require("create_async_tasks_chain", chain=chain, **options)
    named = options.pop("group", None)
    group = named or uuid()[1]
    options["group"] = group
    # A group that the caller names may have several chains.
    id = None if named else chain_ids.first_id(group)
    first = chains.first_link(chain, task_schema(schema), options, id=id, pass_result=pass_result, hook=hook)
    _send([first], once=False)
    return str(group)


def _send(packages: Sequence[Package], *, once: bool) -> str:
    broker, id = packages[0].task.pop("broker", None), packages[0].id
    push.announce(packages)
    on_commit = packages[0].is_on_commit
    if packages[0].option("sync"):
        run = partial(_run_all_here, packages)
        tenancy.on_commit(run) if on_commit else run()
    elif on_commit:
        push.push_on_commit(packages, broker=broker, once=once)
    else:
        return push.push(packages, broker=broker, once=once, limited=True).get(id, id)
    return id


def _run_all_here(packages: Sequence[Package]) -> None:
    for package in packages:
        run_here(package)


def run_here(package: Package) -> None:
    """Run a submitted `sync` package in this process, save its result, and run what follows it.

    Args:
        package: The package.

    Raises:
        Exception: The error that the task raised, after its failed row is saved.
    """
    travelled = open_package(push.sealed(package))
    broker = get_broker(package.option("cluster"))
    with in_schema(package.schema):
        if package.schema != public_schema():
            verify(package.schema, tenant=travelled.tenant or None)
        outcome = execute(travelled)
        settlement = settle.settle([outcome], broker)
        for one in settlement.to_call:
            hooks.call(one)
        iters.delete_parts(settlement.complete, broker)
        for error in (outcome.error, *settlement.unsaved.values()):
            if error is not None:
                raise error
        for link in settlement.links:
            run_here(link)

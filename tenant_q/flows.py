"""What follows a task: its result kept, its hook, a chain's next link, an iter's completion.

`settle()` is the one path from outcomes to saved results, in workers and in sync mode. Everything in it may be done
again after a crash: ids of links and parts are deterministic and rows keep their first success. Hooks are called at
least once.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from django_q.humanhash import uuid
from django_q.models import Task
from django_q.signals import post_execute
from django_q.signing import SignedPackage

from tenant_q import cached, enqueue, process_state, results, tenancy
from tenant_q.brokers import get_broker
from tenant_q.brokers.protocol import Broker
from tenant_q.call_checks import is_function, require, shown
from tenant_q.conf import conf
from tenant_q.envelope import open_package
from tenant_q.exceptions import (
    BrokerDefect,
    BrokerError,
    DatabaseAway,
    EnqueueError,
    EntryRefused,
    GroupTooLarge,
    OversizedResult,
    ResultRefused,
    TaskCancelled,
    WrongArgument,
)
from tenant_q.executor import alarm, execute, give_up, resolve, timeout_of
from tenant_q.forks import no_return
from tenant_q.functions import stored_name
from tenant_q.labels import get_logger
from tenant_q.options import LONGEST, refuse_too_long, take_q_options
from tenant_q.package import CODE, Outcome, Package, build, deterministic_id, labels, without_values
from tenant_q.results import Key
from tenant_q.running import running
from tenant_q.tenancy import in_schema, public_schema, task_address, task_schema, verify

logger = get_logger("tenant_q.flows")

Link = tuple[Any, ...]
_EMPTY_LINK: Link = (None, (), {})


# Submitting


def submit(
    func: Any, args: tuple[Any, ...], keywords: dict[str, Any], *, schema: str | None = None, id: str | None = None
) -> str:
    """Enqueue one call for a tenant, or run it here and now when it is `sync`. Returns the task's id.

    Raises `NoTenant`, `UnknownTenant`, `EnqueueError` or `BrokerError`; in sync mode what the task raised.
    """
    schema, tenant = task_address(schema)
    package = build(func, args, keywords, schema=schema, id=id, tenant=tenant)
    return _send([package], once=id is not None)


def submit_package(package: Package) -> str:
    """Enqueue a package that is built, or run it here and now when it is `sync`. Raises as `submit`."""
    return _send([package], once=False)


def submit_iter(
    func: Any,
    args_iter: Sequence[Any],
    keywords: dict[str, Any],
    *,
    schema: str | None = None,
    origin: str | None = CODE,
) -> str:
    """Enqueue one package for each of `args_iter`, in bulk. Returns the iter's id, under which its results come."""
    require("add_async_tasks_from_iter", func=func, args_iter=args_iter)
    keywords = dict(keywords)
    options = take_q_options(keywords)
    schema = task_schema(schema)
    arguments = [args if isinstance(args, tuple) else (args,) for args in args_iter]
    iter_id: str = uuid()[1]
    kept = options.pop("cached", keywords.pop("cached", conf().cached))
    hook = options.pop("hook", keywords.pop("hook", None))
    keywords.pop("group", None)
    options |= {"group": iter_id, "iter_count": len(arguments), "iter_cached": kept, "cached": True}
    if not arguments:
        raise EnqueueError("An iter needs at least one set of arguments; args_iter is empty.")
    # What the parts have in common is checked once.
    common = build(func, (), keywords | {"q_options": options}, schema=schema, id=iter_id, origin=origin)
    common.task["iter_hook"] = hook
    _send([_iter_part(common, index, args) for index, args in enumerate(arguments)], once=True)
    return iter_id


def _iter_part(common: Package, index: int, args: tuple[Any, ...]) -> Package:
    own = {"id": deterministic_id(common.id, index), "iter_index": index, "args": args, "kwargs": common.kwargs}
    return Package(common.task | own)


def submit_chain(chain: Sequence[Any], *, schema: str | None = None, **options: Any) -> str:
    """Enqueue the first link of a chain; the others follow it one by one. Returns the chain's group.

    Parameters: `chain`, of `(func, args, kwargs)`, the last two optional; `options`, `group`, `cached`, `sync` and
    `broker` for every link. Raises `EnqueueError` when the chain is empty.
    """
    require("create_async_tasks_chain", chain=chain)
    links = [_link(one) for one in chain]
    if not links:
        raise EnqueueError("A chain needs at least one link; append a function first.")
    require("create_async_tasks_chain", **options)
    group = options.pop("group", None) or uuid()[1]
    first = _link_package(links, task_schema(schema), options | {"group": group}, id=None, origin=CODE)
    _send([first], once=False)
    return str(group)


def _link(link: Any) -> Link:
    if not isinstance(link, tuple | list):
        link = (link,)
    func, args, kwargs = (*link, *_EMPTY_LINK[len(link) :]) if len(link) <= len(_EMPTY_LINK) else _EMPTY_LINK
    if not is_function(func) or not isinstance(kwargs, dict):
        raise WrongArgument(
            f"A link of a chain is {shown(link)}; it must be (func, args, kwargs): a function or its path, a tuple of "
            "arguments and a dict of keywords, the last two optional."
        )
    return (func, args if isinstance(args, tuple) else (args,), dict(kwargs))


def _link_package(
    links: Sequence[Link], schema: str, options: dict[str, Any], *, id: str | None, origin: str | None
) -> Package:
    (func, args, kwargs), *rest = links
    package = build(func, args, kwargs, schema=schema, id=id, origin=origin)
    package.task.update({name: value for name, value in options.items() if value is not None})
    package.task["chain"] = rest
    refuse_too_long(package.task)
    return package


def _send(packages: Sequence[Package], *, once: bool) -> str:
    broker = packages[0].task.pop("broker", None)
    enqueue.announce(packages)
    on_commit = packages[0].is_on_commit
    if packages[0].option("sync"):
        run = partial(_run_all_here, packages)
        tenancy.on_commit(run) if on_commit else run()
    elif on_commit:
        enqueue.push_on_commit(packages, broker=broker, once=once)
    else:
        enqueue.push(packages, broker=broker, once=once, limited=True)
    return packages[0].id


def _run_all_here(packages: Sequence[Package]) -> None:
    for package in packages:
        run_here(package)


def run_here(package: Package) -> None:
    """Sync mode: run a package in this process, keep its result, follow its chain.

    Raises what the task raised, after its failed row is kept.
    """
    travelled = open_package(enqueue.sealed(package))
    broker = get_broker(package.option("cluster"))
    with in_schema(package.schema):
        if package.schema != public_schema():
            verify(package.schema, tenant=travelled.tenant or None)
        outcome = execute(travelled)
        settlement = settle([outcome], broker)
        for one in settlement.to_tell:
            tell(one)
        close_iters(settlement.complete, broker)
        for error in (outcome.error, *settlement.unsaved.values()):
            if error is not None:
                raise error
        for link in settlement.links:
            run_here(link)


# Settling


@dataclass
class Settlement:
    """What settling a batch came to.

    `unsaved` holds the errors of outcomes that could not be saved, by the keys of their packages; they are not settled.
    `failed` are the outcomes that became failures because a server refuses their results, by key. `links` are the
    chains' next packages, not enqueued yet. `complete` are iters whose parts are no longer needed. `to_tell` are those
    whose hooks and receivers are not called yet. `sources` maps the id of a link or a collected iter to the id of the
    task that it follows from.
    """

    unsaved: dict[Key, Exception] = field(default_factory=dict)
    failed: dict[Key, Outcome] = field(default_factory=dict)
    links: list[Package] = field(default_factory=list)
    complete: list[Package] = field(default_factory=list)
    to_tell: list[Outcome] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)


def settle(outcomes: Sequence[Outcome], broker: Broker, *, between: Callable[[], Any] = lambda: None) -> Settlement:
    """Keep outcomes and find out what follows them.

    Parameters: `between`, what is called between two tenants where code of the project was called.

    Raises `DatabaseAway` or `BrokerError` when a server cannot be reached: then settle the same outcomes again later.
    """
    settlement = Settlement()
    collated, last_parts = _completed_iters(outcomes, broker, settlement)
    everything = [settlement.failed.get(o.package.key, o) for o in outcomes] + collated
    saved = results.write(everything, between=between)
    settlement.unsaved |= saved.errors
    # Drop a success that comes after a cancel: its result, its chain and its hook.
    everything = [o for o in everything if not (o.success and o.package.key in saved.cancelled)]
    everything = _fail_refused(everything, settlement)
    everything = _save_cached(everything, broker, settlement)
    for outcome in collated:  # the parts of an iter that is not saved yet are still needed
        if outcome.package.key in settlement.unsaved:
            last = last_parts[outcome.package.key]
            settlement.unsaved[last.key] = settlement.unsaved[outcome.package.key]
            settlement.complete.remove(last)
    _follow_chains([o for o in everything if o.package.key not in settlement.unsaved], settlement)
    settled = [o for o in everything if o.package.key not in settlement.unsaved]
    for outcome in settled:
        if not outcome.success:
            names = outcome.package.func_name, outcome.package.name, outcome.death
            level = logging.INFO if outcome.death == TaskCancelled.__name__ else logging.ERROR
            logger.log(level, "Failed %s (%s): %s", *names, extra=labels(outcome.package))
    settlement.to_tell = [outcome for outcome in settled if has_listeners(outcome)]
    return settlement


def _fail_refused(outcomes: Sequence[Outcome], settlement: Settlement) -> list[Outcome]:
    """Save outcomes whose values PostgreSQL refuses as failures. Return all outcomes as they are now."""
    refused = {key: error for key, error in settlement.unsaved.items() if results.is_refused(error)}
    return [
        _as_failed(outcome, refused[outcome.package.key], settlement) if outcome.package.key in refused else outcome
        for outcome in outcomes
    ]


def _as_failed(outcome: Outcome, error: Exception, settlement: Settlement) -> Outcome:
    """Save an outcome as a failure that names why its result is refused, without the values of its arguments."""
    package = outcome.package
    logger.error("The result of %s is refused: %s", package.name, error, extra=labels(package))
    refused = without_values(outcome, ResultRefused(results.refusal_text(error)))
    settlement.unsaved.pop(package.key, None)
    settlement.unsaved |= results.save([refused])
    settlement.failed[package.key] = refused
    return refused


def _save_cached(outcomes: Sequence[Outcome], broker: Broker, settlement: Settlement) -> list[Outcome]:
    """Keep results in the cache. Return all outcomes as they are now: those with a refused result are failures."""
    kept = []
    for outcome in outcomes:
        package = outcome.package
        if package.cached and not package.is_iter_part and package.key not in settlement.unsaved:
            outcome = _cached_or_failed(outcome, broker, settlement)
        kept.append(outcome)
    return kept


def _cached_or_failed(outcome: Outcome, broker: Broker, settlement: Settlement) -> Outcome:
    try:
        with _unsaved_on_error([outcome], settlement), in_schema(outcome.package.schema):
            cached.save(outcome, broker)
    except ResultRefused as error:
        if outcome.success:
            refused = _as_failed(outcome, error, settlement)
            with contextlib.suppress(Exception), in_schema(outcome.package.schema):
                cached.save(refused, broker)  # for callers that wait for it there
            return refused
        extra = labels(outcome.package)
        logger.error("The result of %s is only in its row: %s", outcome.package.name, error, extra=extra)
    return outcome


@contextmanager
def _unsaved_on_error(outcomes: Sequence[Outcome], settlement: Settlement) -> Iterator[None]:
    """Whatever keeps one tenant's outcomes from being kept (its cache is down, say) is that tenant's error alone."""
    try:
        yield
    except (BrokerError, DatabaseAway, ResultRefused):
        raise
    except Exception as error:
        settlement.unsaved |= dict.fromkeys((outcome.package.key for outcome in outcomes), error)


def _follow_chains(outcomes: Sequence[Outcome], settlement: Settlement) -> None:
    """Build the next links. One that cannot be built ends its chain, and its failed row says why."""
    failed: dict[Key, tuple[Outcome, Outcome]] = {}
    for outcome in outcomes:
        try:
            link = next_link(outcome)
        except Exception as error:
            unbuilt = give_up(_unbuilt_link(outcome.package), error)
            failed[unbuilt.package.key] = outcome, unbuilt
        else:
            if link:
                settlement.links.append(link)
                settlement.sources[link.id] = outcome.package.id
    for key, why in results.save([unbuilt for _, unbuilt in failed.values()]).items():
        settlement.unsaved[failed[key][0].package.key] = why


def _unbuilt_link(package: Package) -> Package:
    try:
        func, *_ = _link(package.option("chain")[0])
    except (TypeError, ValueError, LookupError):  # a `WrongArgument` is a TypeError
        func = "?"
    name = stored_name(func)[: LONGEST["func"]]
    words = {"q_options": {"group": package.group}}
    link = build(name, (), words, schema=package.schema, id=_next_id(package), origin=package.origin)
    return Package(link.task | {"tenant": package.tenant})


def close_iters(complete: Sequence[Package], broker: Broker) -> None:
    """Forget the parts of completed iters, once their last part is acknowledged."""
    for package in complete:
        broker.drop_group(package.schema, str(package.group), tenant=package.tenant)


def next_link(outcome: Outcome) -> Package | None:
    """The package of a chain's next link. None at the end, and after a link that failed."""
    package = outcome.package
    links = [_link(one) for one in package.option("chain") or ()]
    if not links or not outcome.success:
        return None
    options = {name: package.option(name) for name in ("group", "cached", "sync", "cluster", "tenant")}
    link = _link_package(links, package.schema, options, id=_next_id(package), origin=package.origin)
    enqueue.announce([link])
    enqueue.sealed(link)  # what cannot travel is to be known here
    return link


def _next_id(package: Package) -> str:
    return deterministic_id(package.group, package.id, "next")


def _completed_iters(
    outcomes: Sequence[Outcome], broker: Broker, settlement: Settlement
) -> tuple[list[Outcome], dict[Key, Package]]:
    """Record the iters' parts among the outcomes.

    Returns the collated outcomes of the iters that are complete now, and by their keys the last parts.
    """
    iters: dict[tuple[str, str | None, str | None], list[Outcome]] = {}
    for outcome in outcomes:
        package = outcome.package
        if package.is_iter_part:
            iters.setdefault((package.schema, package.tenant, package.group), []).append(outcome)
    collated, last_parts = [], {}
    for parts in iters.values():
        signed = _signed_parts(parts, settlement)
        if not signed:
            continue
        last = signed[-1][0]
        with _unsaved_on_error([outcome for outcome, _ in signed], settlement):
            if _add_parts(signed, broker, settlement) >= last.package.task["iter_count"]:
                whole = _collected(last, broker)
                collated.append(whole)
                last_parts[whole.package.key] = last.package
                settlement.complete.append(last.package)
                settlement.sources[str(last.package.group)] = last.package.id
    return collated, last_parts


def _signed_parts(outcomes: Sequence[Outcome], settlement: Settlement) -> list[tuple[Outcome, str]]:
    """Return the parts of an iter with their signed texts."""
    signed = []
    for outcome in outcomes:
        with _unsaved_on_error([outcome], settlement):
            signed.append((outcome, SignedPackage.dumps(outcome.task_dict())))
    return signed


def _add_parts(signed: Sequence[tuple[Outcome, str]], broker: Broker, settlement: Settlement) -> int:
    """Record parts of an iter, those that the broker refuses as failures. Return the number of recorded parts."""
    package = signed[0][0].package
    add = partial(
        broker.add_parts, package.schema, str(package.group), seconds=cached.ITER_SECONDS, tenant=package.tenant
    )
    try:
        return add({_index(outcome): text for outcome, text in signed})
    except (EntryRefused, BrokerDefect) as error:
        if len(signed) > 1:
            return max(_add_parts([one], broker, settlement) for one in signed)
        outcome = signed[0][0]
        logger.error("The result of %s is refused: %s", package.name, error, extra=labels(package))
        refused = without_values(outcome, ResultRefused(results.refusal_text(error)))
        settlement.failed[package.key] = refused
        return add({_index(outcome): SignedPackage.dumps(refused.task_dict())})


def _index(outcome: Outcome) -> str:
    return str(outcome.package.option("iter_index", outcome.package.id))


def _collected(last: Outcome, broker: Broker) -> Outcome:
    """Return one outcome for all parts; a failure without them if they are together too large."""
    package = last.package
    schema, group, tenant = package.schema, str(package.group), package.tenant
    limit = conf().max_list_bytes
    try:
        # The limit is that of the pickles, which the broker keeps as base64.
        found = broker.parts(schema, group, tenant=tenant, most_bytes=limit * 4 // 3).values()
    except GroupTooLarge as error:
        task = _collated_task(package) | {"args": (), "kwargs": {}}
        text = (
            f"the {package.task['iter_count']} parts of {package.func_name} have {error.size * 3 // 4} bytes with "
            f"their arguments, and TENANT_Q['max_list_bytes'] is {limit}; store the results, and return their names."
        )
        return without_values(replace(last, package=Package(task), seconds=0.0), OversizedResult(text))
    return _collate(last, [cached.read(part, schema, tenant, group=group) for part in found])


def _collated_task(package: Package) -> dict[str, Any]:
    """Return the task of an iter, built from one of its parts."""
    left = ("iter_count", "iter_index", "group", "cached", "chain")
    task = {name: value for name, value in package.task.items() if name not in left}
    own = {"id": package.group, "cached": package.option("iter_cached"), "hook": package.option("iter_hook")}
    return task | own


def _collate(last: Outcome, parts: list[dict[str, Any]]) -> Outcome:
    """One outcome of all parts, in the order of the iter's arguments."""
    parts.sort(key=lambda part: (part.get("iter_index", 0), part["started"]))
    package = last.package
    task = _collated_task(package) | {"args": tuple(part["args"] for part in parts)}
    failed = [part for part in parts if not part["success"]]
    return replace(
        last,
        package=Package(task),
        success=not failed,
        result=[part["result"] for part in parts],
        started=min(part["started"] for part in parts),
        stopped=max(part["stopped"] for part in parts),
        seconds=0.0,
        death=(last.death or "IterPartFailed") if failed else None,
    )


def has_listeners(outcome: Outcome) -> bool:
    """Whether a hook or a receiver of `post_execute` is to be told of an outcome."""
    return bool(outcome.package.option("hook") or post_execute.receivers)


def called_receivers(settlement: Settlement) -> bool:
    """Whether settling has called code of the project: receivers of `post_save` or, for links, of `pre_enqueue`."""
    return results.has_own_receivers() or (bool(settlement.links) and enqueue.has_listeners())


def tell(outcome: Outcome) -> None:
    """Call the hook and the receivers of `post_execute`, in the tenant's schema, which must be current.

    What they raise is logged, and changes nothing. They may take as long as the task might.
    """
    package = outcome.package
    try:
        with no_return():
            copy_context().run(_tell, outcome)
    except BaseException:  # also a hook's sys.exit(): it is not to end the worker
        logger.exception("The hook of %s failed", package.name, extra=labels(package))


def _tell(outcome: Outcome) -> None:
    package = outcome.package
    running.set(package)
    with tenancy.unlimited_waits(), alarm(timeout_of(package)):
        post_execute.send(sender="django_q", task=outcome.task_dict())
        if package.option("hook"):
            hook = resolve_hook(package.option("hook"))
            process_state.after_import()
            hook(_hook_task(outcome))


def _hook_task(outcome: Outcome) -> Task:
    task = results.as_task(outcome)
    task._state.adding = not results.wants_row(outcome)
    return task


def resolve_hook(hook: Any) -> Callable[[Task], Any]:
    """Return the hook itself, or the function at its dotted path. Raises `UnknownFunction` and import errors."""
    return resolve(hook)

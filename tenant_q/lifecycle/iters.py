"""Build the parts of iters, record their results, and collect them when the last part is recorded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from django_q.humanhash import uuid
from django_q.signing import SignedPackage

from tenant_q.brokers.protocol import Broker
from tenant_q.conf import conf
from tenant_q.exceptions import (
    BrokerDefect,
    EnqueueError,
    EntryRefused,
    GroupTooLarge,
    OversizedResult,
    ResultRefused,
)
from tenant_q.lifecycle import cached_results, save_results
from tenant_q.lifecycle.outcome_rows import Key
from tenant_q.lifecycle.settlement import Settlement
from tenant_q.package.build import build, deterministic_id
from tenant_q.package.options import take_q_options
from tenant_q.package.outcome import Outcome, without_values
from tenant_q.package.package import Package
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.flows")


def iter_parts(
    func: Any,
    args_iter: Sequence[Any],
    keywords: dict[str, Any],
    schema: str,
    origin: str | None,
    *,
    id: str | None = None,
) -> list[Package]:
    """Build the packages of the parts of an iter.

    Args:
        func: The function, or its dotted path.
        args_iter: The arguments of each part: a tuple, or a single argument.
        keywords: The keyword arguments of all parts, and the options of the iter.
        schema: The tenant's schema.
        origin: Who enqueues the iter.
        id: A deterministic id of the iter; None for a new one.

    Returns:
        The packages. Their common group is the id of the iter.

    Raises:
        EnqueueError: There are no arguments, or an option has a wrong value.
    """
    keywords = dict(keywords)
    options = take_q_options(keywords)
    arguments = [args if isinstance(args, tuple) else (args,) for args in args_iter]
    iter_id: str = id or uuid()[1]
    kept = options.pop("cached", keywords.pop("cached", conf().cached))
    hook = options.pop("hook", keywords.pop("hook", None))
    keywords.pop("group", None)
    options |= {"group": iter_id, "iter_count": len(arguments), "iter_cached": kept, "cached": True}
    if not arguments:
        raise EnqueueError("An iter needs at least one set of arguments; args_iter is empty.")
    # The common part of all packages is checked once.
    common = build(func, (), keywords | {"q_options": options}, schema=schema, id=iter_id, origin=origin)
    common.task["iter_hook"] = hook
    return [_part(common, index, args) for index, args in enumerate(arguments)]


def _part(common: Package, index: int, args: tuple[Any, ...]) -> Package:
    own = {"id": deterministic_id(common.id, index), "iter_index": index, "args": args, "kwargs": common.kwargs}
    return Package(common.task | own)


def record_parts(
    outcomes: Sequence[Outcome], broker: Broker, settlement: Settlement
) -> tuple[list[Outcome], dict[Key, Package]]:
    """Record the outcomes that are parts of iters, and collect the iters that are complete.

    Args:
        outcomes: The outcomes of a batch.
        broker: The broker that keeps the parts.
        settlement: Gets the errors of parts, and the iters that are complete.

    Returns:
        The collected outcomes of the iters that are complete now, and their last parts by the keys of these outcomes.
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
        with settlement.unsaved_on_error([outcome for outcome, _ in signed]):
            if _add_parts(signed, broker, settlement) >= last.package.task["iter_count"]:
                whole = _collected(last, broker)
                collated.append(whole)
                last_parts[whole.package.key] = last.package
                settlement.complete.append(last.package)
                settlement.sources[str(last.package.group)] = last.package.id
    return collated, last_parts


def _signed_parts(outcomes: Sequence[Outcome], settlement: Settlement) -> list[tuple[Outcome, str]]:
    """Return the outcomes of parts of an iter with their signed texts."""
    signed = []
    for outcome in outcomes:
        with settlement.unsaved_on_error([outcome]):
            signed.append((outcome, SignedPackage.dumps(outcome.task_dict())))
    return signed


def _add_parts(signed: Sequence[tuple[Outcome, str]], broker: Broker, settlement: Settlement) -> int:
    """Record parts of an iter; refused parts as failures. Return the number of parts that are recorded so far."""
    package = signed[0][0].package
    add = partial(
        broker.add_parts, package.schema, str(package.group), seconds=cached_results.ITER_SECONDS, tenant=package.tenant
    )
    try:
        return add({_index(outcome): text for outcome, text in signed})
    except (EntryRefused, BrokerDefect) as error:
        if len(signed) > 1:
            return max(_add_parts([one], broker, settlement) for one in signed)
        outcome = signed[0][0]
        refused = without_values(outcome, ResultRefused(save_results.refusal_text(error)))
        settlement.failed[package.key] = refused
        return add({_index(outcome): SignedPackage.dumps(refused.task_dict())})


def _index(outcome: Outcome) -> str:
    return str(outcome.package.option("iter_index", outcome.package.id))


def _collected(last: Outcome, broker: Broker) -> Outcome:
    """Return one outcome for all parts of an iter; a failure without them if they are together too large."""
    package = last.package
    schema, group, tenant = package.schema, str(package.group), package.tenant
    limit = conf().max_list_bytes
    try:
        # The limit is that of the pickles, which the broker keeps as base64.
        found = broker.parts(schema, group, tenant=tenant, most_bytes=limit * 4 // 3).values()
    except GroupTooLarge as error:
        task = _collated_task(package) | {"args": (), "kwargs": {}}
        parts = counted(package.task["iter_count"], "part")
        text = (
            f"the results of {package.func_name} have {error.size * 3 // 4} bytes in {parts}, with "
            f"their arguments, and TENANT_Q['max_list_bytes'] is {limit}; store the results, and return their names."
        )
        return without_values(replace(last, package=Package(task), seconds=0.0), OversizedResult(text))
    return _collate(last, [cached_results.read(part, schema, tenant, group=group) for part in found])


def _collated_task(package: Package) -> dict[str, Any]:
    """Return the task of an iter, built from one of its parts."""
    left = ("iter_count", "iter_index", "group", "cached", "chain")
    task = {name: value for name, value in package.task.items() if name not in left}
    own = {"id": package.group, "cached": package.option("iter_cached"), "hook": package.option("iter_hook")}
    return task | own


def whole_of(part: Package) -> Package:
    """Return the package of the iter that a part belongs to, without arguments. Its id is that of the iter."""
    return Package(_collated_task(part) | {"args": ()})


def _collate(last: Outcome, parts: list[dict[str, Any]]) -> Outcome:
    """Return one outcome for all parts of an iter, in the order of its arguments."""
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
        is_logged=False,
    )


def delete_parts(complete: Sequence[Package], broker: Broker) -> None:
    """Delete the parts of completed iters. Call it after their last parts are acknowledged."""
    for package in complete:
        broker.drop_group(package.schema, str(package.group), tenant=package.tenant)

"""Build the packages of chains. A link is enqueued when the link before it has succeeded.

A package carries the links after its own as tuples `(func, args, kwargs)`. If a chain has a hook or passes results on,
each tuple has a fourth item: whether the link gets the result of the one before it. A worker of an earlier version
refuses such a link, instead of running it without the result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tenant_q.conf import conf
from tenant_q.exceptions import EnqueueError, WrongArgument
from tenant_q.lifecycle import hooks, outcome_log, push, save_results
from tenant_q.lifecycle.chain_ids import next_id
from tenant_q.lifecycle.outcome_rows import Key
from tenant_q.lifecycle.settlement import Settlement
from tenant_q.package import declarations
from tenant_q.package.build import build
from tenant_q.package.enqueueing import not_unique
from tenant_q.package.functions import stored_name
from tenant_q.package.options import LONGEST, refuse_too_long, refuse_wrong_values
from tenant_q.package.outcome import Outcome, give_up
from tenant_q.package.package import CODE, Package
from tenant_q.support.call_checks import is_function, shown

Link = tuple[Any, ...]
_EMPTY_LINK: Link = (None, (), {})
_LENGTH_WITH_PASS = 4


def first_link(
    chain: Sequence[Any],
    schema: str,
    options: dict[str, Any],
    *,
    id: str | None = None,
    pass_result: bool = False,
    hook: Any = None,
) -> Package:
    """Build the package of the first link of a chain.

    Args:
        chain: The links: tuples `(func, args, kwargs)`, of which the last two are optional.
        schema: The tenant's schema.
        options: The options of every link.
        id: The id of the package; None for a new one.
        pass_result: Whether each link gets the result of the one before it as its first argument.
        hook: A function, or its path, that is called once when the chain ends; None for none.

    Returns:
        The package, which carries the other links.

    Raises:
        EnqueueError: The chain is empty, or an option has a wrong value.
        WrongArgument: A link is not a tuple of that form.
    """
    links = [link_of(one) for one in chain]
    if not links:
        raise EnqueueError("A chain needs at least one link; append a function first.")
    for func, _, kwargs in links[1:]:
        _refuse_unique(func, kwargs)
    if hook is not None and not is_function(hook):
        raise EnqueueError(f"The hook of a chain is {shown(hook)}; it must be a function, its dotted path, or None.")
    if pass_result or hook:
        links = [(*link, bool(pass_result)) for link in links]
    return link_package(links, schema, options | {"chain_hook": hook or None}, id=id, origin=CODE)


def _refuse_unique(func: Any, kwargs: Mapping[str, Any]) -> None:
    """Raise `EnqueueError` if a later link of a chain has the option `unique`, in its call or by its declaration."""
    declaration, given = declarations.find(func), kwargs.get("q_options")
    options = {**(declaration.options if declaration else {}), **(given if isinstance(given, dict) else {})}
    if options.get("unique") is not None:
        raise not_unique(func, "the links of a chain")


def link_of(link: Any) -> Link:
    """Return a link of a chain in its full form. Raises `WrongArgument`."""
    if not isinstance(link, tuple | list):
        link = (link,)
    func, args, kwargs = (*link, *_EMPTY_LINK[len(link) :]) if len(link) <= len(_EMPTY_LINK) else _EMPTY_LINK
    if not is_function(func) or not isinstance(kwargs, dict):
        raise WrongArgument(
            f"A link of a chain is {shown(link)}; it must be (func, args, kwargs): a function or its path, a tuple of "
            "arguments and a dict of keywords, the last two optional."
        )
    return (func, args if isinstance(args, tuple) else (args,), dict(kwargs))


def link_package(
    links: Sequence[Link], schema: str, options: dict[str, Any], *, id: str | None, origin: str | None
) -> Package:
    """Build the package of a link of a chain, which carries the links after it.

    Args:
        links: This link and those after it.
        schema: The tenant's schema.
        options: The options of every link; None stands for the default.
        id: The id of the package; None for a new one.
        origin: Who enqueued the chain.
    """
    (func, args, kwargs, *_), *rest = links
    package = build(func, args, kwargs, schema=schema, id=id, origin=origin)
    package.task.update({name: value for name, value in options.items() if value is not None})
    package.task["chain"] = rest
    refuse_wrong_values(package.task)
    if "unique" in package.task:
        raise not_unique(func, "the links of a chain")
    refuse_too_long(package.task)
    return package


def next_link(outcome: Outcome) -> Package | None:
    """Build the package of the next link of a chain. Return None at its end, and after a link that failed."""
    package = outcome.package
    links = [_carried_link(one) for one in package.option("chain") or ()]
    if not links or not outcome.success:
        return None
    links[0] = _with_result(links[0], outcome.result)
    options = {name: package.option(name) for name in ("group", "sync", "tenant", "chain_hook")} | _passed_on(package)
    link = link_package(links, package.schema, options, id=next_id(package.group, package.id), origin=package.origin)
    push.announce([link])
    push.sealed(link)  # so that a value that does not pickle fails here
    return link


def _carried_link(link: Any) -> Link:
    """Return a link of a chain as a package carries it: in its full form, with a fourth item if the package has one."""
    if isinstance(link, tuple | list) and len(link) == _LENGTH_WITH_PASS:
        *own, is_passed = link
        return (*link_of(own), bool(is_passed))
    return link_of(link)


def _with_result(link: Link, result: Any) -> Link:
    """Return a link of a chain with the result of the link before it, if it is to get that."""
    func, args, kwargs, *rest = link
    return (func, (result, *args), kwargs, *rest) if any(rest) else link


def _passed_on(package: Package) -> dict[str, Any]:
    """Return the options that a link got from its chain or its call. Those that its function declares are its own."""
    declaration = declarations.find_loaded(package.func)
    own = declaration.options if declaration else {}
    given = {name: package.option(name) for name in ("cached", "cluster")}
    if given["cached"] == conf().cached:  # by the setting, which holds for each link that declares nothing else
        del given["cached"]
    return {name: value for name, value in given.items() if name not in own or value != own[name]}


def follow(outcomes: Sequence[Outcome], settlement: Settlement) -> None:
    """Build the next links of chains. A link that cannot be built ends its chain, and its failed row says why.

    Args:
        outcomes: The saved outcomes.
        settlement: Gets the links, the hooks of chains that have ended, and the errors of failed rows that could not be
            saved.
    """
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
    errors = save_results.save([unbuilt for _, unbuilt in failed.values()])
    for key, (outcome, unbuilt) in failed.items():
        if key in errors:
            settlement.unsaved[outcome.package.key] = errors[key]
        else:
            outcome_log.log_failure(unbuilt)
            settlement.to_call += hooks.calls_of_chain(unbuilt)
            settlement.sources[unbuilt.package.id] = outcome.package.id


def _unbuilt_link(package: Package) -> Package:
    try:
        func, *_ = _carried_link(package.option("chain")[0])
    except (TypeError, ValueError, LookupError):  # a `WrongArgument` is a TypeError
        func = "?"
    name = stored_name(func)[: LONGEST["func"]]
    words = {"q_options": {"group": package.group, "unique": None, "expires": None}}
    id = next_id(package.group, package.id)
    link = build(name, (), words, schema=package.schema, id=id, origin=package.origin)
    return Package(link.task | {"tenant": package.tenant, "chain_hook": package.option("chain_hook")})

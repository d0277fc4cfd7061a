"""Record an OpenTelemetry span for each task, if the project has set up OpenTelemetry (extra `tracing`).

The span begins a new trace and has a link to the span in which the task was enqueued, which may have ended long ago and
may have enqueued a thousand other tasks.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

# The key of a package for the span in which it was enqueued, as W3C headers.
CARRIED = "trace"
_R = TypeVar("_R")


def carry_span(task: dict[str, Any]) -> None:
    """Put the current OpenTelemetry span, if any, into the dict of a task that is about to be enqueued."""
    trace = _trace()
    if trace and trace.get_current_span().get_span_context().is_valid:
        from opentelemetry import propagate

        headers: dict[str, str] = {}
        propagate.inject(headers)
        task[CARRIED] = headers


def traced(call: Callable[..., _R]) -> Callable[..., _R]:
    """Return a function that runs `call(package, ...)`, in a span if the project has set up OpenTelemetry."""

    @functools.wraps(call)
    def perhaps_in_span(package: Any, *arguments: Any) -> _R:
        trace = _trace()
        return _in_span(trace, call, package, *arguments) if trace else call(package, *arguments)

    return perhaps_in_span


def _in_span(trace: Any, call: Callable[..., _R], package: Any, *arguments: Any) -> _R:
    attributes = {
        "tenant_q.schema": package.schema,
        "tenant_q.task_id": package.id,
        "tenant_q.task_name": package.name,
        "tenant_q.func": package.counted_func,
    }
    with trace.get_tracer("tenant_q").start_as_current_span(
        package.counted_func,
        kind=trace.SpanKind.CONSUMER,
        links=_links(trace, package),
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as span:
        try:
            return call(package, *arguments)
        except BaseException as error:  # also a timeout or `sys.exit()`, which a span does not count as an error
            span.set_status(trace.StatusCode.ERROR, type(error).__name__)
            _record(span, error)
            raise


def _record(span: Any, error: BaseException) -> None:
    try:
        span.record_exception(error)
    except BaseException:  # an error that cannot be shown: the span still has its class, and the row has more
        return


def _links(trace: Any, package: Any) -> list[Any]:
    carried = package.option(CARRIED)
    if not isinstance(carried, dict):
        return []
    from opentelemetry import propagate

    context = trace.get_current_span(propagate.extract(carried)).get_span_context()
    return [trace.Link(context)] if context.is_valid else []


def _trace() -> Any:
    """Return OpenTelemetry's API, or None if the project has not set it up. A project that did has imported it."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    return trace


def flush() -> None:
    """Send OpenTelemetry's unfinished batch of spans. Call it before a process ends: nothing runs at its exit."""
    trace = _trace()
    send = getattr(trace.get_tracer_provider(), "force_flush", None) if trace else None  # only the SDK has it
    if send is not None:
        send(2000)

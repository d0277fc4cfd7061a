"""A span of OpenTelemetry for each task, where the project has set OpenTelemetry up (extra `tracing`); else nothing.

The span is of its own trace and has a link to the span in which the task was enqueued, which may have ended long ago
and may have enqueued a thousand others.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

# Where a package carries the span in which it was enqueued, as the W3C's headers.
CARRIED = "trace"
_R = TypeVar("_R")


def carry_span(task: dict[str, Any]) -> None:
    """Put the current span, if there is one, into a task dict that is about to be enqueued."""
    trace = _trace()
    if trace and trace.get_current_span().get_span_context().is_valid:
        from opentelemetry import propagate

        headers: dict[str, str] = {}
        propagate.inject(headers)
        task[CARRIED] = headers


def traced(call: Callable[..., _R]) -> Callable[..., _R]:
    """Have `call(package, ...)` run in a span, where there is somebody to tell it to."""

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
        except BaseException as error:  # also a timeout or `sys.exit()`, which a span takes for no error
            span.set_status(trace.StatusCode.ERROR, type(error).__name__)
            _record(span, error)
            raise


def _record(span: Any, error: BaseException) -> None:
    try:
        span.record_exception(error)
    except BaseException:  # an error that breaks whatever looks at it: the span has its class; its row has more
        return


def _links(trace: Any, package: Any) -> list[Any]:
    carried = package.option(CARRIED)
    if not isinstance(carried, dict):
        return []
    from opentelemetry import propagate

    context = trace.get_current_span(propagate.extract(carried)).get_span_context()
    return [trace.Link(context)] if context.is_valid else []


def _trace() -> Any:
    """OpenTelemetry's API where the project has set it up, and so has imported it; else None."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return None
    return trace


def flush() -> None:
    """Send the spans that are kept for the next batch: this process ends, and nothing runs at its exit."""
    trace = _trace()
    send = (
        getattr(trace.get_tracer_provider(), "force_flush", None) if trace else None
    )  # of the SDK, where that is used
    if send is not None:
        send(2000)

"""A span of OpenTelemetry for each task, where its API is installed (the extra `tracing`); else nothing at all.

The span is of its own trace and has a link to the span in which the task was enqueued, which may have ended long ago
and may have enqueued a thousand others.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

try:
    from opentelemetry import propagate, trace
except ImportError:
    IS_INSTALLED = False
else:
    IS_INSTALLED = True

# Where a package carries the span in which it was enqueued, as the W3C's headers.
CARRIED = "trace"
_R = TypeVar("_R")


def carry_span(task: dict[str, Any]) -> None:
    """Put the current span, if there is one, into a task dict that is about to be enqueued."""
    if IS_INSTALLED and trace.get_current_span().get_span_context().is_valid:
        headers: dict[str, str] = {}
        propagate.inject(headers)
        task[CARRIED] = headers


def traced(call: Callable[..., _R]) -> Callable[..., _R]:
    """Have `call(package, ...)` run in a span. Where OpenTelemetry is not installed, `call` itself."""
    if not IS_INSTALLED:
        return call

    @functools.wraps(call)
    def in_span(package: Any, *arguments: Any) -> _R:
        attributes = {
            "tenant_q.schema": package.schema,
            "tenant_q.task_id": package.id,
            "tenant_q.task_name": package.name,
            "tenant_q.func": package.func_name,
        }
        with trace.get_tracer("tenant_q").start_as_current_span(
            package.func_name,
            kind=trace.SpanKind.CONSUMER,
            links=_links(package),
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                return call(package, *arguments)
            except BaseException as error:  # also a timeout or `sys.exit()`, which a span takes for no error
                _record(span, error)
                raise

    return in_span


def _record(span: trace.Span, error: BaseException) -> None:
    span.set_status(trace.StatusCode.ERROR, type(error).__name__)
    try:
        span.record_exception(error)
    except BaseException:  # an error that breaks whatever looks at it: its class is told, and its row tells more
        return


def _links(package: Any) -> list[trace.Link]:
    carried = package.option(CARRIED)
    if not isinstance(carried, dict):
        return []
    context = trace.get_current_span(propagate.extract(carried)).get_span_context()
    return [trace.Link(context)] if context.is_valid else []


def flush() -> None:
    """Send the spans that are kept for the next batch: this process ends, and nothing runs at its exit."""
    if IS_INSTALLED:
        send = getattr(trace.get_tracer_provider(), "force_flush", None)  # of the SDK, where that is used
        if send is not None:
            send(2000)

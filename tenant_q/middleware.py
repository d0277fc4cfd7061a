"""Middleware: restrict each request of a tenant to that tenant."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import FileResponse, HttpRequest, HttpResponseBase

from tenant_q import tenancy
from tenant_q.exceptions import ConfigurationError

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class RestrictToTenant:
    """Restrict each request of a tenant as `restrict_to` does. Put it after the middleware that chooses the tenant.

    The restriction covers views, templates, the middleware that follows, and the content of a streaming response.
    Requests of the public schema are not restricted.

    Args:
        get_response: The next handler.

    Raises:
        ConfigurationError: The middleware that chooses the tenant comes later in `MIDDLEWARE`.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._respond(request)
        chosen = _chosen_schema(request)
        schema = chosen or tenancy.current_schema()
        with _restriction(schema):
            response = cast(HttpResponseBase, self.get_response(request))
        return _finished(request, response, schema, was_chosen=chosen is not None)

    async def _respond(self, request: HttpRequest) -> HttpResponseBase:
        """Answer a request in an event loop."""
        chosen = _chosen_schema(request)
        schema = chosen or await sync_to_async(tenancy.current_schema, thread_sensitive=True)()
        with _restriction(schema):
            response = await cast(Awaitable[HttpResponseBase], self.get_response(request))
        return _finished(request, response, schema, was_chosen=chosen is not None)


def _chosen_schema(request: HttpRequest) -> str | None:
    """Return the schema of a request's tenant; None if the request has none, so that the connection decides."""
    return getattr(getattr(request, "tenant", None), "schema_name", None)


def _restriction(schema: str) -> AbstractContextManager[None]:
    return nullcontext() if schema == tenancy.public_schema() else tenancy.restricted(schema)


def _finished(request: HttpRequest, response: HttpResponseBase, schema: str, *, was_chosen: bool) -> HttpResponseBase:
    """Finish a response: restrict its content too, unless the request had no tenant yet and was not restricted."""
    if not was_chosen and _chosen_schema(request) is not None:
        raise ConfigurationError(
            "MIDDLEWARE names tenant_q.middleware.RestrictToTenant before the middleware that chooses the tenant; put "
            "it after that."
        )
    if schema != tenancy.public_schema():
        _restrict_content(response, schema)
    return response


def _restrict_content(response: HttpResponseBase, schema: str) -> None:
    """Restrict the code that produces the content of a streaming response, which runs after the middleware."""
    if not response.streaming or isinstance(response, FileResponse):
        return
    streaming = cast(Any, response)
    content = streaming.streaming_content
    streaming.streaming_content = (
        _restricted_asynchronously(content, schema) if streaming.is_async else _restricted(content, schema)
    )


def _restricted(content: Iterable[bytes], schema: str) -> Iterator[bytes]:
    chunks = iter(content)
    while True:
        with tenancy.restricted(schema):
            chunk = next(chunks, None)
        if chunk is None:
            return
        yield chunk


async def _restricted_asynchronously(content: AsyncIterable[bytes], schema: str) -> AsyncIterator[bytes]:
    chunks = aiter(content)
    while True:
        with tenancy.restricted(schema):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        yield chunk

"""The middleware restricts each request of a tenant, in synchronous and asynchronous stacks."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction, sync_to_async
from django.conf import settings as django_settings
from django.http import FileResponse, HttpResponse, StreamingHttpResponse
from django.test import AsyncClient, AsyncRequestFactory, Client
from django.urls import path

from tenant_q import tenancy
from tenant_q.exceptions import ConfigurationError, TenantNotAuthorized
from tenant_q.middleware import RestrictToTenant
from tenant_q.utils import QUtilities
from tests import schemas

pytestmark = pytest.mark.seam

A, B = "acme_corp", "globex_inc"
FUNC = "tests.tasks.add"


def plain(request: Any) -> HttpResponse:
    return HttpResponse(str(tenancy.restriction()))


async def asynchronous(request: Any) -> HttpResponse:
    await asyncio.sleep(0)
    found = {tenancy.restriction(), await sync_to_async(tenancy.restriction)()}
    return HttpResponse(" ".join(map(str, found)))


def elsewhere(request: Any) -> HttpResponse:
    return HttpResponse(QUtilities.add_async_task(FUNC, 1, 2, schema_name=B))


async def asynchronous_elsewhere(request: Any) -> HttpResponse:
    return HttpResponse(await QUtilities.aadd_async_task(FUNC, 1, 2, schema_name=B))


def stream(request: Any) -> StreamingHttpResponse:
    return StreamingHttpResponse(str(tenancy.restriction()) + ";" for _ in range(2))


async def asynchronous_stream(request: Any) -> StreamingHttpResponse:
    async def chunks() -> Any:
        for _ in range(2):
            await asyncio.sleep(0)
            yield f"{tenancy.restriction()};"

    return StreamingHttpResponse(chunks())


def file(request: Any) -> FileResponse:
    return FileResponse(open(__file__, "rb"))  # noqa: PTH123 (the response closes it)


VIEWS = (plain, asynchronous, elsewhere, asynchronous_elsewhere, stream, asynchronous_stream, file)
urlpatterns = [path(view.__name__, view) for view in VIEWS]


@pytest.fixture(autouse=True)
def host(tenants, settings):
    settings.ROOT_URLCONF = settings.PUBLIC_SCHEMA_URLCONF = __name__
    settings.MIDDLEWARE = [django_settings.TENANT_MIDDLEWARE, "tenant_q.middleware.RestrictToTenant"]
    with schemas.served_at(A, "acme.localhost"), schemas.served_at(tenancy.public_schema(), "public.localhost"):
        yield


class HostClient(AsyncClient):
    """A client of one host; Django's own appends a second header."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self.host = host

    def _base_scope(self, **request: Any) -> Any:
        return super()._base_scope(**request | {"headers": [(b"host", self.host.encode())]})  # type: ignore[misc]


def get(view: Any, host: str = "acme.localhost") -> Any:
    return Client(headers={"host": host}).get(f"/{view.__name__}")


def get_asynchronously(view: Any, host: str = "acme.localhost") -> Any:
    return asyncio.run(HostClient(host).get(f"/{view.__name__}"))


@pytest.mark.parametrize("ask", [get, get_asynchronously])
@pytest.mark.parametrize("view", [plain, asynchronous])
def test_a_request_of_a_tenant_is_restricted(ask, view):
    assert ask(view).content.decode() == A
    assert tenancy.restriction() is None


@pytest.mark.parametrize("ask", [get, get_asynchronously])
@pytest.mark.parametrize("view", [elsewhere, asynchronous_elsewhere])
def test_a_view_makes_no_call_for_another_tenant(ask, view):
    with pytest.raises(TenantNotAuthorized):
        ask(view)
    assert QUtilities.get_queue_size(schema_name=B) == 0


@pytest.mark.parametrize("ask", [get, get_asynchronously])
def test_a_request_of_public_is_not_restricted(ask):
    assert ask(plain, "public.localhost").content == b"None"
    ask(elsewhere, "public.localhost")
    assert QUtilities.get_queue_size(schema_name=B) == 1


def test_the_content_of_a_stream_is_restricted():
    response = get(stream)
    assert tenancy.restriction() is None
    assert response.getvalue().decode() == f"{A};{A};"
    assert get(stream, "public.localhost").getvalue() == b"None;None;"


def test_the_content_of_an_asynchronous_stream_is_restricted():
    async def read() -> str:
        response = await HostClient("acme.localhost").get("/asynchronous_stream")
        return "".join([chunk.decode() async for chunk in response])

    assert asyncio.run(read()) == f"{A};{A};"


def test_a_file_is_left_to_the_server(rf):
    with tenancy.in_schema(A):
        response: Any = RestrictToTenant(file)(rf.get("/"))
    assert response.file_to_stream is not None
    response.close()


def test_without_a_tenant_on_the_request_the_connection_decides(rf):
    restrict: Any = RestrictToTenant(plain)
    with tenancy.in_schema(A):
        assert restrict(rf.get("/")).content.decode() == A
    assert restrict(rf.get("/")).content == b"None"


def test_without_a_tenant_on_the_request_the_connection_decides_in_an_event_loop():
    restrict: Any = RestrictToTenant(asynchronous)
    assert iscoroutinefunction(restrict)
    with tenancy.in_schema(A):
        assert async_to_sync(restrict)(AsyncRequestFactory().get("/")).content.decode() == A
    assert async_to_sync(restrict)(AsyncRequestFactory().get("/")).content == b"None"


@pytest.mark.parametrize("ask", [get, get_asynchronously])
def test_the_wrong_order_is_an_error(settings, ask):
    settings.MIDDLEWARE = settings.MIDDLEWARE[::-1]
    with pytest.raises(ConfigurationError, match="put it after that"):
        ask(plain)

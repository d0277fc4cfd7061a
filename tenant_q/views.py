"""Views for a project's URLs."""

from __future__ import annotations

from functools import cache
from typing import Any

from django.http import Http404, HttpRequest, HttpResponse

from tenant_q import tenancy
from tenant_q.exceptions import BrokerError, ConfigurationError, DatabaseAway


def metrics(request: HttpRequest) -> HttpResponse:
    """View for a project's URLs: return the metrics of the site for Prometheus.

    They are about all tenants, so the view exists on the public site only and is a 404 elsewhere. It checks no
    permission: the project restricts who may read the metrics.

    Args:
        request: The request, whose `Accept` header chooses the format.

    Returns:
        The metrics, or status 503 while the broker or the database is away.

    Raises:
        Http404: The site is not the public one.
        ConfigurationError: `prometheus_client` is not installed.
    """
    if tenancy.current_schema() != tenancy.public_schema():
        raise Http404
    encode, registry = _exposition()
    body, content_type = encode(registry, request.headers.get("Accept", ""))
    return HttpResponse(body, content_type=content_type) if content_type else HttpResponse(body, status=503)


@cache
def _exposition() -> tuple[Any, Any]:
    try:
        from prometheus_client.exposition import choose_encoder

        from tenant_q.operations.metrics import registry
    except ImportError as error:
        raise ConfigurationError(
            "tenant_q.views.metrics needs prometheus_client; install tenant-q with the extra 'metrics'."
        ) from error

    def encode(found: Any, accept: str) -> tuple[bytes, str]:
        encoder, content_type = choose_encoder(accept)
        try:
            return encoder(found), content_type
        except (BrokerError, DatabaseAway) as error:
            return f"{error}\n".encode(), ""

    return encode, registry()

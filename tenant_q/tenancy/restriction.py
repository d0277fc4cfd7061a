"""Restrict code to one tenant: a context variable, which every call that names or switches a tenant checks.

The restriction holds for the coroutines that a block starts, and for the code that asgiref runs for them in threads. A
thread that code starts itself has an empty context, and so no restriction; only in a worker that isolates tenants, the
threads of a tenant's tasks are restricted as well.
"""

from __future__ import annotations

from contextvars import ContextVar
from types import TracebackType

from tenant_q.exceptions import TenantNotAuthorized
from tenant_q.tenancy import worker_state

# The schema of the innermost block.
_restricted_to: ContextVar[str | None] = ContextVar("tenant_q_restricted_to", default=None)


class restricted:
    """Restrict a block to the tenant with a schema. Each object is for one block.

    What the restriction was before is restored at the end, whatever restrictions the block has left behind.

    Args:
        schema: The schema name of the tenant.

    Raises:
        TenantNotAuthorized: The block is in another one, which is restricted to another tenant.
    """

    __slots__ = ("_before", "schema")

    def __init__(self, schema: str) -> None:
        self.schema = schema

    def __enter__(self) -> None:
        self._before = _restricted_to.get()
        require_authorized(self.schema)
        _restricted_to.set(self.schema)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _restricted_to.set(self._before)  # no reset by a token: a generator may end in another context


def restriction() -> str | None:
    """Return the schema of the tenant to which the calling code is restricted, or None."""
    return _restricted_to.get()


def require_authorized(schema: str) -> None:
    """Require that the calling code may make calls for a tenant, or for the public schema.

    Args:
        schema: The schema for which the call is.

    Raises:
        TenantNotAuthorized: The code is restricted to another tenant.
    """
    own = _restricted_to.get() or worker_state.restriction_of_thread()
    if own is not None and own != schema:
        raise TenantNotAuthorized(
            f"A call for schema {schema!r} was made in code that is restricted to tenant {own!r}; make it for {own!r}, "
            f"or outside of the block, request or task that restricts the code."
        )

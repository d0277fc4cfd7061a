"""Authorise code to make calls for one tenant only, and pass this authorisation on as a signed token."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import ContextDecorator
from datetime import timedelta
from functools import wraps
from types import TracebackType
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core import signing

from tenant_q import tenancy
from tenant_q.exceptions import TenantNotAuthorized, UnknownTenant, WrongArgument
from tenant_q.support.call_checks import is_text, shown

__all__ = ["authorize", "restrict_to", "tenant_token"]

LONGEST_AGE = 3600
"""The age in seconds up to which a token is accepted by default."""
_SALT = "tenant_q.authorization"


class restrict_to(ContextDecorator):
    """Restrict a block to one tenant: calls of tenant_q for another tenant raise `TenantNotAuthorized` inside it.

    Refused are `in_schema` and every `schema_name` of another tenant or of the public schema, and calls for the current
    tenant while another one is current. The block's value is the schema name. A block inside another one can only name
    the same tenant. It is also a decorator, of functions and of coroutine functions.

    It holds for the coroutines that the block starts, and for the code that they await through `sync_to_async`, but not
    for a thread that the block starts itself. Statements of the project, and switches by the tenancy package's own
    means, are not refused: that takes a database role for each tenant.

    Args:
        schema: The schema name of the tenant.

    Raises:
        TenantNotAuthorized: The block is in another one, which is restricted to another tenant.
        WrongArgument: `schema` is not a text, the object is used for two blocks at a time, or it decorates a generator.
    """

    def __init__(self, schema: str) -> None:
        if not is_text(schema):
            raise WrongArgument(f"restrict_to() was called with {shown(schema)}; it must be a tenant's schema name.")
        self.schema = schema
        self._block: tenancy.restricted | None = None

    def __repr__(self) -> str:
        return f"restrict_to({self.schema!r})"

    def _recreate_cm(self) -> restrict_to:
        return restrict_to(self.schema)

    def __call__(self, func: Callable[..., Any]) -> Any:
        if inspect.isgeneratorfunction(func) or inspect.isasyncgenfunction(func):
            raise WrongArgument(
                f"{self!r} cannot decorate {func.__qualname__}: a generator's code runs where it is iterated; write "
                "'with restrict_to(...)' around that."
            )
        if not iscoroutinefunction(func):
            return super().__call__(func)

        @wraps(func)
        async def inside(*args: Any, **kwargs: Any) -> Any:
            with self._recreate_cm():
                return await func(*args, **kwargs)

        return inside

    def __enter__(self) -> str:
        if self._block is not None:
            raise WrongArgument(f"{self!r} is used for one block at a time; create an object for each block.")
        block = tenancy.restricted(self.schema)
        block.__enter__()
        self._block = block
        return self.schema

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        block, self._block = self._block, None
        if block is not None:
            block.__exit__(kind, error, traceback)


def tenant_token(schema: str, *, salt: str = "") -> str:
    """Return a signed token that stands for a tenant, for `authorize`.

    It is a text without secrets, which `SECRET_KEY` signs, and is safe in URLs and headers. Whoever has it is
    authorised. A tenant that gets the same schema name later is another tenant, for which the token is not valid.

    Args:
        schema: The schema name of the tenant.
        salt: What the token is for, such as "download": `authorize` accepts it with the same salt only.

    Raises:
        UnknownTenant: No tenant has this schema name.
        TenantNotAuthorized: The calling code is restricted to another tenant.
        WrongArgument: `schema` is not a text, or the public schema, which belongs to no tenant.
        InEventLoop: The caller is a coroutine; it awaits `sync_to_async(tenant_token)`.
        DatabaseAway: The database cannot be reached.
    """
    if not is_text(schema) or schema == tenancy.public_schema():
        raise WrongArgument(f"tenant_token() was called with {shown(schema)}; it must be a tenant's schema name.")
    tenancy.require_authorized(schema)
    return signing.dumps([schema, tenancy.keys_now([schema])[schema]], salt=_salted(salt))


def authorize(token: str, *, max_age: int | timedelta | None = LONGEST_AGE, salt: str = "") -> restrict_to:
    """Verify a token, and return the restriction to its tenant, whose block has the schema name as its value.

    Args:
        token: A token of `tenant_token`.
        max_age: The largest age of the token, in seconds or as a timedelta; None for no limit.
        salt: The salt with which the token was made.

    Raises:
        TenantNotAuthorized: The token is missing, was changed, was signed with another key or salt, or is too old; or
            its tenant is gone, even if another one has its schema name now.
        InEventLoop: The caller is a coroutine; it awaits `sync_to_async(authorize)`.
        DatabaseAway: The database cannot be reached.
    """
    schema, key = _opened(token, max_age, salt)
    try:
        is_same = tenancy.keys_now([schema])[schema] == key
    except UnknownTenant:
        is_same = False
    if not is_same:
        raise TenantNotAuthorized(
            f"The tenant of the token (schema {schema!r}, key {key}) is gone; make a token of a tenant that exists."
        )
    return restrict_to(schema)


def _opened(token: Any, max_age: int | timedelta | None, salt: str) -> tuple[str, str]:
    """Verify the signature and the age of a token. Return the schema and the key of its tenant."""
    if not isinstance(token, str) or not token:
        raise TenantNotAuthorized("The call has no token of a tenant; pass one that tenant_token() has made.")
    try:
        schema, key = signing.loads(token, salt=_salted(salt), max_age=max_age)
    except signing.SignatureExpired as error:
        raise TenantNotAuthorized(
            f"The token of a tenant has expired ({error}); make another one with tenant_token()."
        ) from error
    except signing.BadSignature as error:
        raise TenantNotAuthorized(
            "The token of a tenant is not valid: it was changed, or was signed with another SECRET_KEY or salt; make "
            "another one with tenant_token()."
        ) from error
    return schema, key


def _salted(salt: str) -> str:
    return f"{_SALT}:{salt}"

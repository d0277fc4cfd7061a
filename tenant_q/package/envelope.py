"""Sign a package with its schema inside, and check and read it at the other end."""

from __future__ import annotations

import inspect
import io
import pickle
from dataclasses import dataclass
from typing import Any

from django_q.conf import Conf
from django_q.signing import BadSignature, PickleSerializer

from tenant_q.exceptions import BadPackage, EnqueueError
from tenant_q.package.package import Package
from tenant_q.package.signing import sign, unsign


def seal(package: Package, *, most_bytes: int | None = None) -> str:
    """Seal a package in its envelope: return its signed text, in which the schema is signed too.

    Args:
        package: The package.
        most_bytes: The largest size of its pickle in bytes; None for no limit.

    Raises:
        EnqueueError: The package is too large, or a value in it does not pickle. The message names function and cause.
    """
    try:
        pickled = PickleSerializer.dumps(package.task)
    except Exception as error:  # whatever a class's own __reduce__ raises
        raise EnqueueError(
            f"{package.func_name} cannot be enqueued for {package.schema}: its function, arguments or hook do not "
            f"pickle ({error}); pass plain values and functions defined at a module's top level."
        ) from error
    if most_bytes is not None:
        refuse_too_large(package, len(pickled), most_bytes)
    return sign(pickled, compress=Conf.COMPRESSED)


def refuse_too_large(package: Package, size: int, most_bytes: int) -> None:
    """Raise `EnqueueError` if a package is too large for an envelope: its pickle exceeds `most_bytes`."""
    if size > most_bytes:
        raise EnqueueError(
            f"{package.func_name} cannot be enqueued for {package.schema}: with its arguments it takes {size} bytes, "
            f"and TENANT_Q['max_bytes'] is {most_bytes}; pass the name of a file or a key instead."
        )


@dataclass(frozen=True, slots=True)
class Found:
    """The place where a payload was found. None is not compared.

    Attributes:
        id: The id under which it was found.
        schema: The schema name of the tenant in whose queue it was.
        tenant: The key of that tenant. It is compared instead of the schema if the package carries a key.
    """

    id: str | None = None
    schema: str | None = None
    tenant: str | None = None


ANYWHERE = Found()


def open_package(payload: str, found: Found = ANYWHERE) -> Package:
    """Open the envelope of a package: check its signature and its place, and return the package.

    Args:
        payload: The signed text.
        found: Where it was found.

    Raises:
        BadPackage: The signature is wrong, the package belongs to another tenant, to none, or under another id, or a
        class
            in it is gone. Only in the last case the error carries the readable rest as `package`.
    """
    try:
        task = PickleSerializer.loads(unsign(payload))
    except BadSignature as error:
        raise BadPackage(
            f"the signature does not fit this project's SECRET_KEY and Q_CLUSTER['name'] ({error}); purge it, or start "
            "a cluster with those it was signed with"
        ) from error
    except Exception as error:
        raise _missing_class(payload, found, error) from error
    return _checked(task, found)


def _checked(task: Any, found: Found) -> Package:
    if not isinstance(task, dict) or not {"id", "name", "func", "args", "kwargs"} <= task.keys() or "success" in task:
        raise BadPackage("it is signed but holds no task that is to be run; purge it")
    if not task.get("schema_name"):
        raise BadPackage("it names no tenant; enqueue it through QUtilities or with tenant_q in INSTALLED_APPS")
    if found.id is not None and task["id"] != found.id:
        raise BadPackage(
            f"it has the id {task['id']} and was found under the id {found.id}; purge it, and find out who moved it"
        )
    if found.schema is not None and not _is_of(task, found):
        raise BadPackage(
            f"it belongs to tenant {task['schema_name']!r} and was found in the queue of {found.schema!r}; purge it, "
            "and find out who moved it"
        )
    return Package(task)


def _is_of(task: dict[str, Any], found: Found) -> bool:
    if task.get("tenant") is not None and found.tenant is not None:
        return bool(task["tenant"] == found.tenant)
    return bool(task["schema_name"] == found.schema)


class _AnyAttribute(type):
    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls


class _Missing(metaclass=_AnyAttribute):
    """A stand-in for a class that is gone, so that the rest of the package can still be read.

    It accepts everything that a pickle does to an instance, even of a subclass of list or dict, and keeps nothing.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(type(self), name)

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class _LenientUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            return _Missing


def _missing_class(payload: str, found: Found, error: Exception) -> BadPackage:
    refused = BadPackage(f"it cannot be unpickled: {error}; deploy the class or function it names, or enqueue anew")
    try:
        rest = _checked(_LenientUnpickler(io.BytesIO(unsign(payload))).load(), found)
    except Exception:
        return refused
    readable = rest.task | {"args": (), "kwargs": {}, "hook": None, "chain": None}
    if not isinstance(readable.get("chain_hook"), str):
        readable.pop("chain_hook", None)
    if not isinstance(readable["func"], str) and not inspect.isroutine(readable["func"]):
        readable["func"] = "?"
    refused.package = Package(readable)
    return refused

"""The context that the function of a step gets: the input, the results of other steps, and what steps share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tenant_q.workflows.values import json_of

_MISSING = object()


class Results(Mapping[str, Any]):
    """The outputs of the steps that have succeeded, by name. That of a step with items is the list of their outputs.

    Args:
        known: Outputs that are loaded already.
        load: Loads the output of another step. Raises `KeyError` if it has none.
        names: Returns the names of the steps that have an output.
    """

    def __init__(
        self, known: Mapping[str, Any], load: Callable[[str], Any] | None = None, names: Callable[[], Any] | None = None
    ) -> None:
        self._known = dict(known)
        self._load = load
        self._names = names

    def __getitem__(self, name: str) -> Any:
        if name not in self._known:
            if self._load is None:
                raise KeyError(name)
            self._known[name] = self._load(name)
        return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known if self._names is None else self._names())

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return f"Results({self._known!r})"


class Context:
    """What the function of a step gets. `Context.of` makes one for a test.

    Attributes:
        input: The input of the run.
        results: The outputs of the steps that have succeeded, by name.
        item: The item of a step that runs once for each; None for other steps.
        index: The place of the item; None for other steps.
        run_id: The id of the run.
        step: The name of the step.
        attempt: The number of this start, counted from 1.
        generation: The number of times that the run was started or resumed.
        idempotency_key: A key that stays the same when the step runs again, for calls to other systems.
        tenant: The schema of the tenant.
        state: In `on_end` only: the state of the run.
        error: In `on_end` only: why the run failed; empty if it did not.
    """

    def __init__(
        self,
        *,
        input: Mapping[str, Any],
        config: Any,
        results: Mapping[str, Any],
        item: Any = None,
        index: int | None = None,
        run_id: str = "",
        step: str = "",
        attempt: int = 1,
        generation: int = 1,
        idempotency_key: str = "",
        tenant: str = "",
        state: str | None = None,
        error: str = "",
        shared: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        self.input = input
        self._config = config
        self.results = results
        self.item = item
        self.index = index
        self.run_id = run_id
        self.step = step
        self.attempt = attempt
        self.generation = generation
        self.idempotency_key = idempotency_key
        self.tenant = tenant
        self.state = state
        self.error = error
        self._load_shared = shared or dict
        self._shared: Mapping[str, Any] | None = None
        self._set: dict[str, Any] = {}

    @classmethod
    def of(
        cls,
        *,
        input: Mapping[str, Any] | None = None,
        results: Mapping[str, Any] | None = None,
        config: Any = None,
        shared: Mapping[str, Any] | None = None,
        **attributes: Any,
    ) -> Context:
        """Return a context for calling the function of a step in a test.

        Args:
            input: The input of the run.
            results: The outputs of other steps, by name.
            config: The configuration of the tenant, as `tenant_q.tenancy.TenantConfig`; None for an empty one.
            shared: What other steps have set in the context.
            **attributes: Other attributes of the context, such as `item` or `attempt`.
        """
        from tenant_q.tenancy import TenantConfig

        known = dict(shared or {})
        return cls(
            input=input or {},
            config=TenantConfig() if config is None else config,
            results=Results(results or {}),
            shared=lambda: known,
            **attributes,
        )

    @property
    def config(self) -> Any:
        """The tenant's configuration when the run started: its display name, settings, features and limits."""
        if callable(self._config):
            self._config = self._config()
        return self._config

    def get(self, name: str, default: Any = None) -> Any:
        """Return a value of the context: what this step, or a step it depends on, has set, or else the input's.

        Of several steps, the last in the order of the plan counts.

        Args:
            name: The name of the value.
            default: The value to return if there is none.
        """
        if name in self._set:
            return self._set[name]
        if self._shared is None:
            self._shared = self._load_shared()
        found = self._shared.get(name, _MISSING)
        return self.input.get(name, default) if found is _MISSING else found

    def set(self, name: str, value: Any) -> None:
        """Set a value in the context. Steps that depend on this one, and the context of the run, have it then.

        Args:
            name: The name of the value.
            value: A JSON value.

        Raises:
            ValueRefused: The value is not JSON, or too large.
        """
        json_of({str(name): value})
        self._set[str(name)] = value

    @property
    def changes(self) -> Mapping[str, Any]:
        """What this step has set in the context."""
        return self._set

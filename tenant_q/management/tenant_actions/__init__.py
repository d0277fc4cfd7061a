"""What `mstenant` can do: each module here is an action of that name, with a class `Action`."""

from __future__ import annotations

import pkgutil
from importlib import import_module

from tenant_q.management.console import OperatorCommand
from tenant_q.management.tenant_action import TenantAction


def tenant_actions(command: OperatorCommand) -> dict[str, TenantAction]:
    """Return what `mstenant` can do by its name, sorted by name.

    Args:
        command: The command that runs, which the actions write with.
    """
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: import_module(f"{__name__}.{name}").Action(name, command) for name in names}

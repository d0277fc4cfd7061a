"""Schedules from code in the admin: marked as such, and not to be edited. A tenant's staff may pause them."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from tenant_q.admin.staff_limits import StaffLimitsAdmin
from tenant_q.exceptions import BadSchedule
from tenant_q.models import CodeSchedule
from tenant_q.schedules import by_hand, code_entries

_FROM_CODE = _("This schedule comes from the code of this site, which determines it. You can pause and resume it.")
_WITHDRAWN = _("This schedule came from the code of this site, which does not have it any more. You can delete it.")


class FromCodeAdmin(StaffLimitsAdmin):
    """An admin of schedules in which those from code are only paused and resumed."""

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        if entry_of(obj) is None:
            return fields
        return (*fields, *(field.name for field in obj._meta.concrete_fields if field.editable))

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        entry = entry_of(obj)
        if entry is None:
            return fieldsets
        (title, options), *others = fieldsets
        return [(title, {**options, "description": _WITHDRAWN if entry.withdrawn else _FROM_CODE}), *others]

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        entry = entry_of(obj)
        return super().has_delete_permission(request, obj) and (entry is None or entry.withdrawn is not None)

    def refuse_from_code(self, obj: Any) -> None:
        """Raise `PermissionDenied` if a row comes from code, whichever form is to change it."""
        if entry_of(obj) is not None:
            raise PermissionDenied(_("This schedule comes from code."))


def entry_of(obj: Any) -> CodeSchedule | None:
    """Return what is known of a schedule from code; None for others. The first answer is kept in the row."""
    if obj is None or obj.pk is None:
        return None
    if not hasattr(obj, "tenant_q_code_entry"):
        obj.tenant_q_code_entry = code_entries.entry_of(obj)
    return obj.tenant_q_code_entry  # type: ignore[no-any-return]


def require_in_code(row: Any) -> None:
    """Raise `BadSchedule` if a schedule has left the code. One that did not come from code never has."""
    entry = entry_of(row)
    if entry is not None and entry.withdrawn:
        raise BadSchedule(str(_("The code of this site does not have this schedule any more.")))


def resume(row: Any, actor: str) -> bool:
    """Resume a schedule by hand as `by_hand.resume`. Raises `BadSchedule` if it has left the code."""
    require_in_code(row)
    return by_hand.resume(row.pk, actor=actor)

"""Keep a tenant's staff from making a schedule run what the project does not offer."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from tenant_q.admin.forms import limited
from tenant_q.admin.gate import GatedAdmin
from tenant_q.schedules import offered_schedules, schedule_rows

_LOCKED = _(
    "This schedule runs a function or uses an option that is not offered here. You can pause, resume, delete and "
    "rename it, and change when it runs. Only the operators of this site can change the rest."
)


class StaffLimitsAdmin(GatedAdmin):
    """An admin of schedules in which a tenant's staff chooses from what the project offers.

    A schedule that runs something else, which code has made, is locked: staff can change when it runs, and its name.
    """

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        fields = super().get_readonly_fields(request, obj)
        return (*fields, *offered_schedules.GUARDED) if self.is_locked(obj) else fields

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if not self.is_locked(obj):
            return fieldsets
        (title, options), *others = fieldsets
        return [(title, {**options, "description": _LOCKED}), *others]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        if self.is_locked(obj):
            kwargs.setdefault("help_texts", dict.fromkeys(offered_schedules.GUARDED, ""))
        return limited(super().get_form(request, obj, change=change, **kwargs))

    def get_changelist_formset(self, request: HttpRequest, **kwargs: Any) -> Any:
        formset = super().get_changelist_formset(request, **kwargs)
        formset.form = limited(formset.form)
        return formset

    def is_locked(self, obj: Any) -> bool:
        """Return whether a row is locked for a tenant's staff, because it runs what is not offered.

        The first answer is kept, because a form writes what was sent into the row.
        """
        if obj is None or not offered_schedules.is_limited():
            return False
        if not hasattr(obj, "tenant_q_is_locked"):
            obj.tenant_q_is_locked = not offered_schedules.is_listed(obj)
        return bool(obj.tenant_q_is_locked)

    def require_offered(self, obj: Any, changed: set[str] | None) -> None:
        """Raise `PermissionDenied` for a row that a tenant's staff may not save, whichever form it comes from.

        An existing row is locked in the database, so that code that changes its function meanwhile does not get
        arguments that were meant for another one.

        Args:
            obj: The row, with the new values.
            changed: The names of the changed fields; None for a new row.
        """
        if not offered_schedules.is_limited():
            return
        if changed is not None and self.is_locked(schedule_rows.rows().select_for_update().filter(pk=obj.pk).first()):
            is_allowed = changed.isdisjoint(offered_schedules.GUARDED)
        else:
            is_allowed = offered_schedules.is_listed(obj)
        if not is_allowed:
            raise PermissionDenied(_("This is not offered here."))

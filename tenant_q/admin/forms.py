"""The form of a schedule: what would not run is not saved, and each error stands at its field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_q.models import Schedule

from tenant_q import acts, schedules, tenancy
from tenant_q.exceptions import BadSchedule
from tenant_q.validation import problems

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[Any]
else:
    ModelForm = forms.ModelForm


_MOVED_ON = {"next_run", "repeats"}


class ScheduleForm(ModelForm):
    """A schedule, checked by the code that is to run it.

    What the scheduler moves on, the next run and the repeats that are left, is written only if it was changed on the
    page: both carry with them what was shown.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._before = {name: getattr(self.instance, name) for name in _MOVED_ON}
        self._is_new = self.instance.pk is None
        self._was_paused = not self._is_new and acts.is_paused(self.instance)
        self.is_planned_anew = False
        if "repeats" in self.fields:
            self.fields["repeats"].show_hidden_initial = True  # as that of the next run, whose default is a function
        if "next_run" in self.fields:
            self.fields["next_run"].required = False
            self.fields["next_run"].help_text = (
                _("Empty while it is paused. A time given here resumes it.")
                if self._was_paused
                else _("When it runs next. A cron schedule finds its first run by itself.")
            )

    def _get_validation_exclusions(self) -> set[str]:
        """Django-Q2's own check of the cron text is left out: that of the scheduler tells the place."""
        return super()._get_validation_exclusions() | {"cron"}  # type: ignore[misc, no-any-return]

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        row = self.instance
        if not self._is_new:
            for name in _MOVED_ON - set(self.changed_data):
                setattr(row, name, self._before[name])
        self._tell_problems()
        if not self.errors:
            self._plan(row)

    def _tell_problems(self) -> None:
        for field, reason in problems(self.instance, tenancy.current_schema()):
            if field not in self.errors:
                self.add_error(field if field in self.fields else None, ValidationError(reason, code="schedule"))

    def _plan(self, row: Any) -> None:
        """Find the next run of a cron text that is new; demand one from all others."""
        is_cron = row.schedule_type == Schedule.CRON
        has_new_text = bool({"cron", "schedule_type"} & set(self.changed_data))
        if is_cron and not self._was_paused and (self._is_new or (has_new_text and not self._moved())):
            now = timezone.now()
            try:
                row.next_run = schedules.following(row, now, now, catch_up=False)
            except BadSchedule as error:
                self.add_error("cron", ValidationError(str(error), code="schedule"))
            self.is_planned_anew = True
        elif row.next_run is None and not self._was_paused and row.repeats != 0:
            self.add_error("next_run", ValidationError(_("Enter when it runs next; to stop it, pause it."), "required"))

    def _moved(self) -> bool:
        return "next_run" in self.changed_data

"""The form of a schedule, which refuses a schedule that would not run and shows each error at its field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django_q.models import Schedule

from tenant_q import tenancy
from tenant_q.conf import site_clusters
from tenant_q.exceptions import BadSchedule
from tenant_q.schedules import by_hand, catch_up, offered, offered_schedules, row_runs
from tenant_q.schedules.validation import problems

if TYPE_CHECKING:
    ModelForm = forms.ModelForm[Any]
else:
    ModelForm = forms.ModelForm


_MOVED_ON = {"next_run", "repeats"}
WHEN = {"schedule_type", "minutes", "cron", *_MOVED_ON}
"""The fields of a schedule that determine when it runs."""
CONFIRM_RUNS = "tenant_q_confirm_runs"
"""The box that is ticked on the page to confirm that several missed runs start at once."""
_CONFIRM = _("%(count)s missed runs would start at once. Confirm it, or set the next run to a time in the future.")


class ScheduleForm(ModelForm):
    """A schedule, checked by the code that will run it.

    A tenant's staff chooses function and hook from what the project offers. A schedule that runs something else, which
    code has made, is locked: staff can change when it runs, and its name.

    The scheduler changes the next run and the remaining repeats. The form writes them only if they were changed on the
    page, and sends the values that were shown along for comparison.

    If several missed runs would start at once, the form is only valid once this is confirmed; `runs_to_confirm` is
    their number. A preview does not ask.
    """

    asks_before_runs = True
    runs_to_confirm = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._before = {name: getattr(self.instance, name) for name in (*_MOVED_ON, *offered_schedules.GUARDED)}
        self._is_new = self.instance.pk is None
        self._recurrence = row_runs.recurrence_of(self.instance)
        self._was_paused = not self._is_new and by_hand.is_paused(self.instance)
        self._is_limited = offered_schedules.is_limited()
        self._is_locked = self._is_limited and not self._is_new and not offered_schedules.is_listed(self.instance)
        self.is_planned_anew = False
        if self._is_limited:
            self._offer_choices()
        if "repeats" in self.fields:
            self.fields[
                "repeats"
            ].show_hidden_initial = True  # Django does so for the next run, whose default is callable
        if "next_run" in self.fields:
            self.fields["next_run"].required = False
            self.fields["next_run"].help_text = (
                _("Empty while the schedule is paused. Entering a time resumes it.")
                if self._was_paused
                else _(
                    "When the schedule runs next. It is computed for a new cron schedule, and when the type, the "
                    "interval or the cron text changes."
                )
            )

    def _offer_choices(self) -> None:
        """Replace the form's fields in which a tenant's staff may only choose by lists."""
        paths = [(title, [(path, path) for path in found]) for title, found in offered.functions().items()]
        for name, choices in (("func", paths), ("hook", paths), ("cluster", [(one, one) for one in site_clusters()])):
            if name in self.fields:
                self.fields[name] = self._choice(name, choices)

    def _choice(self, name: str, choices: list[Any]) -> forms.Field:
        field = self.fields[name]
        current = self._before[name]
        if current and not self._is_new and self._is_locked:
            choices = [(current, current), *choices]
        return forms.TypedChoiceField(
            choices=[("", "---------"), *choices],
            required=field.required,
            label=field.label,
            help_text=_("One of the functions that this site offers.") if name == "func" else "",
            initial=field.initial,
            empty_value="" if field.required else None,
            error_messages={"invalid_choice": _("%(value)s is not offered here; choose one from the list.")},
        )

    def _get_validation_exclusions(self) -> set[str]:
        """Leave the cron text out of Django-Q2's checks of the form: ours names the part that is wrong."""
        return super()._get_validation_exclusions() | {"cron"}  # type: ignore[misc, no-any-return]

    def _post_clean(self) -> None:
        super()._post_clean()  # type: ignore[misc]
        row = self.instance
        if not self._is_new:
            for name in _MOVED_ON - set(self.changed_data):
                setattr(row, name, self._before[name])
        if self._is_locked:
            self._keep_locked()
        self._add_problems()
        if not self.errors:
            self._plan(row)
        if not self.errors and self.asks_before_runs and (self._is_new or WHEN & set(self.changed_data)):
            self._ask_before_runs(row)

    def _keep_locked(self) -> None:
        """Restore the form's fields that a tenant's staff may not change, whatever was sent."""
        for name in offered_schedules.GUARDED:
            setattr(self.instance, name, self._before[name])
            if name in self.changed_data:
                self._add(name, _("This cannot be changed here, because the schedule runs code that is not offered."))

    def _add_problems(self) -> None:
        is_refused = self._is_locked
        if self._is_limited and not self._is_locked:
            for name, reason in offered_schedules.problems(self.instance):
                is_refused = True
                self._add(name, reason)
        for field, reason in problems(self.instance, tenancy.current_schema(), imports=not is_refused):
            if not self._is_locked or field in WHEN:
                self._add(field, reason)

    def _add(self, field: str | None, reason: Any) -> None:
        """Add an error to a field of the form, unless it has one, or to the form if the page shows no such field."""
        if field not in self.errors:
            self.add_error(field if field in self.fields else None, ValidationError(reason, code="schedule"))

    def _plan(self, row: Any) -> None:
        """Compute the next run of a new or changed recurrence in the form; require one in all other cases."""
        if self._was_paused:
            return
        is_changed = not self._is_new and not self._moved() and row_runs.recurrence_of(row) != self._recurrence
        if is_changed or (self._is_new and row.schedule_type == Schedule.CRON):
            now = timezone.now()
            try:
                row.next_run = row_runs.after_change(row, row.next_run or now, now)
            except BadSchedule as error:
                self._add("cron" if row.schedule_type == Schedule.CRON else "schedule_type", str(error))
            self.is_planned_anew = True
        elif row.next_run is None and row.repeats != 0:
            self._add("next_run", _("Enter when the schedule runs next. To stop it, pause it."))

    def _ask_before_runs(self, row: Any) -> None:
        """Have the form ask for confirmation if a schedule would start several missed runs at once."""
        count = catch_up.runs_at_once(row, timezone.now())
        if count > 1 and self.data.get(CONFIRM_RUNS) != "on":
            self.runs_to_confirm = count
            self.add_error(None, ValidationError(_CONFIRM, code="confirm", params={"count": count}))

    def _moved(self) -> bool:
        return "next_run" in self.changed_data


def limited(form: type[Any]) -> type[Any]:
    """Return a form class with the checks of `ScheduleForm`, which a project's own class may lack."""
    if issubclass(form, ScheduleForm):
        return form
    return type(form.__name__, (ScheduleForm, form), {"Meta": form.Meta} if hasattr(form, "Meta") else {})

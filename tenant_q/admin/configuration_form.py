"""The form in which operators change a tenant's configuration."""

from __future__ import annotations

import json
from typing import Any

from django import forms
from django.utils.translation import gettext_lazy as _

from tenant_q.models.tenants import CONFIGURED, MOST_CHARACTERS, problems_of

_LEAST_ROWS, _MOST_ROWS = 4, 24


class ObjectField(forms.JSONField):
    """A field of a tenant's configuration for an object of JSON, on several lines. An empty one is an empty object."""

    def to_python(self, value: Any) -> Any:
        found = super().to_python(value)
        return {} if found is None else found

    def prepare_value(self, value: Any) -> Any:
        return (
            json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict) else super().prepare_value(value)
        )


def _object_field(label: Any, help_text: Any) -> ObjectField:
    widget = forms.Textarea(attrs={"class": "vLargeTextField tenant-q-code", "spellcheck": "false"})
    return ObjectField(required=False, label=label, help_text=help_text, widget=widget, show_hidden_initial=True)


class ConfigurationForm(forms.Form):
    """A tenant's configuration.

    The values that were shown are sent along, so that `changes` holds what was changed on the page and not what
    somebody else has changed meanwhile.
    """

    display_name = forms.CharField(
        required=False,
        max_length=MOST_CHARACTERS,
        label=_("Display name"),
        help_text=_("The tenant's name for people."),
        show_hidden_initial=True,
        widget=forms.TextInput(attrs={"class": "vTextField"}),
    )
    settings = _object_field(_("Settings"), _("What the project configures, an object of JSON."))
    features = _object_field(_("Features"), _("What is switched on or off, an object of JSON."))
    limits = _object_field(
        _("Limits"),
        _("max_items, max_open_workflows and max_connections are whole numbers; others are the project's."),
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, field in self.fields.items():
            if isinstance(field, ObjectField):
                lines = str(self[name].value()).count("\n") + 1
                field.widget.attrs["rows"] = min(max(lines + 1, _LEAST_ROWS), _MOST_ROWS)

    def clean(self) -> None:
        super().clean()
        for name in CONFIGURED:
            if name in self.cleaned_data:
                for problem in problems_of(name, self.cleaned_data[name]):
                    self.add_error(name, problem)

    def changes(self) -> dict[str, Any]:
        """Return what was changed on the page, as `policies.configure` takes it. The form must be valid."""
        found: dict[str, Any] = {}
        for name in self.changed_data:
            now = self.cleaned_data[name]
            if not isinstance(now, dict):
                found[name] = now
            elif changed := _changed_keys(self._shown(name), now):
                found[name] = changed
        return found

    def _shown(self, name: str) -> dict[str, Any]:
        """Return the object that the page of a tenant's configuration showed before it was changed."""
        try:
            found = self.fields[name].to_python(self.data.get(self[name].html_initial_name))
        except forms.ValidationError:
            return {}
        return found if isinstance(found, dict) else {}


def _changed_keys(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of a tenant's configuration whose values differ as JSON does, which tells 1 from true.

    Returns:
        The new values by key; None for keys that are gone.
    """
    removed = dict.fromkeys(before.keys() - after.keys())
    texts = {name: json.dumps(value, sort_keys=True) for name, value in before.items()}
    return removed | {key: value for key, value in after.items() if json.dumps(value, sort_keys=True) != texts.get(key)}

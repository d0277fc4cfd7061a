"""Actions on one row, as buttons above its page: each is a POST of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import messages
from django.contrib.admin.utils import quote, unquote
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponseRedirect
from django.urls import path, reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_POST

from tenant_q.admin.gate import GatedAdmin


@dataclass(frozen=True, slots=True)
class Button:
    """A button.

    Attributes:
        action: The name of the admin's action, which is a method of the admin.
        label: The text of the button.
        style: A CSS class.
    """

    action: str
    label: Any
    style: str = ""


class ButtonsAdmin(GatedAdmin):
    """An admin whose actions are also buttons on a row's page, for those who may change the row."""

    change_form_template = "tenant_q/admin/change_form.html"

    class Media:
        css = {"all": ["tenant_q/admin.css"]}

    def label(self, obj: Any) -> str:
        """Return the name of a row, above its buttons."""
        return str(obj)

    def get_buttons(self, request: HttpRequest, obj: Any) -> Sequence[Button]:
        """Return the buttons of a row's admin page."""
        return ()

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        obj = self.get_object(request, unquote(object_id))
        buttons: list[dict[str, Any]] = []
        context: dict[str, Any] = {"tenant_q_buttons": buttons}
        if obj is not None:
            context["subtitle"] = self.label(obj)
        if obj is not None and self.has_change_permission(request, obj):
            buttons += [
                {"label": button.label, "style": button.style, "url": self._action_url(obj, button.action)}
                for button in self.get_buttons(request, obj)
            ]
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    def get_urls(self) -> list[Any]:
        opts = self.opts
        button = path(
            "<path:object_id>/act/<slug:action>/",
            self._guarded(self.admin_site.admin_view(require_POST(self.action_view))),
            name=f"{opts.app_label}_{opts.model_name}_act",
        )
        return [button, *super().get_urls()]

    def action_view(self, request: HttpRequest, object_id: str, action: str) -> HttpResponseRedirect:
        """Carry out the action of a button, and return to the page of the row."""
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            raise Http404(_("There is no such row here."))
        if not self.has_change_permission(request, obj):
            raise PermissionDenied
        if action not in [button.action for button in self.get_buttons(request, obj)]:
            messages.warning(request, _("Nothing was done, because this is no longer possible."))
        else:
            getattr(self, action)(request, self.get_queryset(request).filter(pk=obj.pk))
        return HttpResponseRedirect(self._page_url(obj))

    def _action_url(self, obj: Any, action: str) -> str:
        return self._url("act", quote(obj.pk), action)

    def _page_url(self, obj: Any) -> str:
        return self._url("change", quote(obj.pk))

    def _url(self, view: str, *args: Any) -> str:
        opts = self.opts
        return reverse(f"admin:{opts.app_label}_{opts.model_name}_{view}", args=args, current_app=self.admin_site.name)

"""Acts on one row, as buttons above its page: each is a POST of its own, with its own permission."""

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
    """`act` names the method that does it, as the admin's actions are named; `label` is what it says."""

    act: str
    label: Any
    style: str = ""


class ButtonsAdmin(GatedAdmin):
    """An admin whose actions are also buttons on a row's page, for those who may change the row."""

    change_form_template = "tenant_q/admin/change_form.html"

    class Media:
        css = {"all": ["tenant_q/admin.css"]}

    def label(self, obj: Any) -> str:
        """What a row is called."""
        return str(obj)

    def get_buttons(self, request: HttpRequest, obj: Any) -> Sequence[Button]:
        """The buttons of a row's page."""
        return ()

    def change_view(self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: Any = None) -> Any:
        obj = self.get_object(request, unquote(object_id))
        buttons: list[dict[str, Any]] = []
        context: dict[str, Any] = {"tenant_q_buttons": buttons}
        if obj is not None:
            context["subtitle"] = self.label(obj)
        if obj is not None and self.has_change_permission(request, obj):
            buttons += [
                {"label": button.label, "style": button.style, "url": self._act_url(obj, button.act)}
                for button in self.get_buttons(request, obj)
            ]
        return super().change_view(request, object_id, form_url, context | (extra_context or {}))

    def get_urls(self) -> list[Any]:
        opts = self.opts
        act = path(
            "<path:object_id>/act/<slug:act>/",
            self._guarded(self.admin_site.admin_view(require_POST(self.act_view))),
            name=f"{opts.app_label}_{opts.model_name}_act",
        )
        return [act, *super().get_urls()]

    def act_view(self, request: HttpRequest, object_id: str, act: str) -> HttpResponseRedirect:
        """Do what a button says, and go back to the row's page, or to the list when the row is gone."""
        obj = self.get_object(request, unquote(object_id))
        if obj is None:
            raise Http404(_("There is no such row here."))
        if not self.has_change_permission(request, obj):
            raise PermissionDenied
        if act not in [button.act for button in self.get_buttons(request, obj)]:
            messages.warning(request, _("Nothing was done: this is not possible any more."))
        else:
            getattr(self, act)(request, self.get_queryset(request).filter(pk=obj.pk))
        return HttpResponseRedirect(self._page_url(obj))

    def _act_url(self, obj: Any, act: str) -> str:
        return self._url("act", quote(obj.pk), act)

    def _page_url(self, obj: Any) -> str:
        return self._url("change", quote(obj.pk))

    def _url(self, view: str, *args: Any) -> str:
        opts = self.opts
        return reverse(f"admin:{opts.app_label}_{opts.model_name}_{view}", args=args, current_app=self.admin_site.name)

"""Tags for the start page of the app in the admin, which shows the overview above the list of pages."""

from __future__ import annotations

from typing import Any

from django import template
from django.contrib.admin.sites import all_sites
from django.template.loader import render_to_string
from django.utils.safestring import SafeString, mark_safe

from tenant_q.admin.overview import OverviewPagesAdmin
from tenant_q.models import Overview, SiteOverview

register = template.Library()


@register.simple_tag(takes_context=True)
def overview(context: template.Context) -> SafeString:
    """Return the overview of all tenants or of one, whichever this site has; empty for users who may not see it."""
    request: Any = context.get("request")
    admin = _overview_admin(request)
    if admin is None:
        return mark_safe("")
    return render_to_string("tenant_q/admin/overview_content.html", admin.overview(request), request)


@register.simple_tag(takes_context=True)
def overview_media(context: template.Context) -> SafeString:
    """Return the style sheets and the script of the overview; empty where it is not shown."""
    admin = _overview_admin(context.get("request"))
    return mark_safe("") if admin is None else admin.media.render()


def _overview_admin(request: Any) -> OverviewPagesAdmin | None:
    """Return the admin of the overview of the requested site, if the user may see it."""
    name = getattr(request, "current_app", None)
    for site in [site for site in all_sites if site.name == name]:
        for model in (SiteOverview, Overview):
            admin = site._registry.get(model)
            if isinstance(admin, OverviewPagesAdmin) and admin.has_view_permission(request):
                return admin
    return None

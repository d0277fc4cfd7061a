"""The operators' page of one tenant: state, database role, last probe, policy and configuration."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from tenant_q import policies, tenancy
from tenant_q.admin.configuration_form import ConfigurationForm
from tenant_q.admin.count_links import list_link
from tenant_q.admin.gate import PublicAdmin
from tenant_q.admin.pages import PagesAdmin
from tenant_q.admin.values import LONGEST
from tenant_q.conf import conf
from tenant_q.exceptions import NoTenant, TenantQError, UnknownTenant
from tenant_q.lifecycle.retention import Kept, kept_of
from tenant_q.models import TenantRole
from tenant_q.operations.tenant_details import TenantDetails, read_details, read_roles
from tenant_q.support import workflows_app
from tenant_q.support.visible import visible, visible_lines

STYLES: dict[str, str] = {
    TenantRole.State.PROVISIONING: "tenant-q-warn",
    TenantRole.State.ACTIVE: "tenant-q-good",
    TenantRole.State.REPAIR: "tenant-q-bad",
    TenantRole.State.LEAVING: "tenant-q-warn",
}
"""The CSS classes of the states of a role."""
_PARTS = (
    ("settings", gettext_lazy("Settings")),
    ("features", gettext_lazy("Features")),
    ("limits", gettext_lazy("Limits")),
)


class TenantPagesAdmin(PagesAdmin, PublicAdmin):
    """The page of one tenant, and the form of its configuration.

    A configuration is for those who have the permissions of `TenantConfiguration`, because it may say more about a
    tenant than its load.
    """

    def get_views(self) -> Mapping[str, tuple[str, Callable[..., Any]]]:
        return {
            "tenant": ("<str:schema>/", self.tenant_view),
            "configuration": ("<str:schema>/configuration/", self.configuration_view),
        }

    def tenant_view(self, request: HttpRequest, schema: str) -> HttpResponse:
        """Show what is kept about a tenant to operators."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            details = _details(schema)
        except TenantQError as error:
            return self.page(request, "tenant", step=visible(schema), title=visible(schema), error=str(error))
        policy, name = details.policy, visible(details.configuration.display_name)
        can_view = _may(request, "view") or _may(request, "change")
        can_change = _may(request, "change") and details.is_known and schema != tenancy.public_schema()
        return self.page(
            request,
            "tenant",
            step=visible(schema),
            title=(can_view and name) or visible(schema),
            details=details,
            advice=_with_code(details.advice),
            isolation=conf().isolation,
            state=_state(details),
            role=details.role,
            probe=_probe(details.role),
            policy=policy_words(policy.weight, policy.max_running, policy.max_queued, kept_of(policy)),
            parts=_parts(details) if can_view else None,
            edit_url="configuration/" if can_change else "",
            lists=self._lists(request, schema),
            list_url=self.list_url(),
        )

    def configuration_view(self, request: HttpRequest, schema: str) -> HttpResponse:
        """Save what an operator changed in a tenant's configuration, or show the form."""
        if not (self.has_view_permission(request) and _may(request, "change")):
            raise PermissionDenied
        try:
            details = _details(schema)
        except TenantQError as error:
            self.message_user(request, str(error), messages.ERROR)
            return HttpResponseRedirect("../")
        form = ConfigurationForm(request.POST or None, initial=details.configuration.as_json())
        if form.is_valid() and self._configure(request, schema, form.changes()):
            return HttpResponseRedirect("../")
        step = _("Configuration of %(schema)s") % {"schema": visible(schema)}
        return self.page(request, "configuration", step=step, title=step, form=form)

    def _configure(self, request: HttpRequest, schema: str, changes: dict[str, Any]) -> bool:
        """Change a tenant's configuration, and say in a message what came of it. Return whether it is done."""
        if not changes:
            self.message_user(request, _("Nothing was changed."), messages.INFO)
            return True
        try:
            policies.configure(schema, actor=request.user.get_username(), **changes)
        except TenantQError as error:
            self.message_user(request, str(error), messages.ERROR)
            return False
        text = _("The configuration of %(schema)s was saved. Running processes use it within %(seconds)s s.")
        words = {"schema": schema, "seconds": f"{conf().tenant_cache_seconds:g}"}
        self.message_user(request, text % words, messages.SUCCESS)
        return True

    def _lists(self, request: HttpRequest, schema: str) -> list[tuple[str, Any]]:
        """Return the lists of a tenant that its page leads to: URLs, empty if the user may not see one, and labels."""
        return [
            ("tasks/", _("Tasks")),
            (list_link(request, self.admin_site, "failedtask", schema=schema), _("Failures")),
            (list_link(request, self.admin_site, "deadtask", schema=schema), _("Dead tasks")),
            ("runs/" if workflows_app.is_installed() else "", _("Workflow runs")),
            (list_link(request, self.admin_site, "auditrecord", q=schema), _("Audit records")),
        ]


def _details(schema: str) -> TenantDetails:
    try:
        return read_details(schema)
    except (UnknownTenant, NoTenant) as error:
        raise Http404(visible(str(error))) from error


def _may(request: HttpRequest, act: str) -> bool:
    """Return whether a user may view or change tenants' configurations in the admin."""
    return request.user.has_perm(f"tenant_q.{act}_tenantconfiguration")  # type: ignore[union-attr]


def _state(details: TenantDetails) -> tuple[Any, str]:
    """Return the state of a tenant's role on the operators' page, and its CSS class."""
    if not details.is_known:
        return _("no tenant"), "tenant-q-soft"
    if details.role is None:
        return _("no role"), "tenant-q-soft" if conf().isolation == "path" else "tenant-q-bad"
    return _state_of(details.role)


def _state_of(role: TenantRole) -> tuple[Any, str]:
    return dict(TenantRole.State.choices).get(role.state, role.state), STYLES.get(role.state, "tenant-q-soft")


def role_notes(isolation: str) -> dict[str, tuple[Any, str]]:
    """Return for the operators' table what is unusual about tenants' roles: a text and its CSS class by schema.

    Args:
        isolation: The mode. Under "path" nothing is read.
    """
    if isolation == "path":
        return {}
    found: dict[str, tuple[Any, str]] = {}
    for role in read_roles():
        if role.state != TenantRole.State.ACTIVE:
            found[role.schema_name] = _state_of(role)
        else:
            found[role.schema_name] = (_probe(role) or ("", "")) if role.crossings else ("", "")
    return found


def _probe(role: TenantRole | None) -> tuple[str, str] | None:
    """Return what the last probe of a role found, and its CSS class; None if there was none."""
    if role is None or role.probed is None:
        return None
    if not role.crossings:
        return _("no crossing"), "tenant-q-good"
    text = ngettext("%(count)s crossing", "%(count)s crossings", role.crossings)
    return text % {"count": role.crossings}, "tenant-q-bad"


def policy_words(weight: float, max_running: int | None, max_queued: int | None, kept: Kept) -> str:
    """Return on the operators' pages what a tenant's policy has that is not the default; empty if nothing."""
    said = [_("weight %(weight)s") % {"weight": f"{weight:g}"}] if weight != 1 else []
    limits = (
        (_("run"), max_running, "%s"),
        (_("queue"), max_queued, "%s"),
        (_("keep"), kept.max_results, "%s"),
        (_("keep"), kept.success_days, _("%s d")),
        (_("failures"), kept.max_failures, "%s"),
        (_("failures"), kept.failure_days, _("%s d")),
    )
    said += [f"{name} ≤ {form % _number(most)}" for name, most, form in limits if most is not None]
    return ", ".join(said)


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _parts(details: TenantDetails) -> list[tuple[Any, list[tuple[str, str]]]]:
    """Return the parts of a tenant's configuration with their keys and values, as the operators' page shows them."""
    config = details.configuration
    return [
        (label, [(visible(key), _json(value)) for key, value in sorted(getattr(config, name).items())])
        for name, label in _PARTS
    ]


def _with_code(text: str) -> SafeString:
    """Return a text for the operators' page in which what is between backticks is code."""
    parts = text.split("`")
    return format_html_join(
        "", "{}", [[format_html("<code>{}</code>", part) if n % 2 else part] for n, part in enumerate(parts)]
    )


def _json(value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return visible_lines(text if len(text) <= LONGEST else f"{text[:LONGEST]}\n… {_('and more')}")

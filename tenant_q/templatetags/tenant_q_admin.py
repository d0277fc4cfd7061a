"""Template tags of the admin's lists: moments in one format, and cells that know their column."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from tenant_q.support import moments

register = template.Library()

register.filter("moment", moments.shown)


@register.inclusion_tag("tenant_q/admin/results.html")
def tenant_q_results(cl: Any) -> dict[str, Any]:
    """Return the context of a change list's table, in which each cell has the label of its column.

    A phone shows the rows as cards, with the labels beside the values.

    Args:
        cl: Django's change list.
    """
    from django.contrib.admin.templatetags.admin_list import result_list

    context: dict[str, Any] = result_list(cl)
    labels = ["" if "action-checkbox" in one["class_attrib"] else one["text"] for one in context["result_headers"]]
    for row in context["results"]:
        row[:] = [_labelled(cell, label) for cell, label in zip(row, labels, strict=False)] + row[len(labels) :]
    return context


def _labelled(cell: SafeString, label: Any) -> SafeString:
    """Return a cell of a change list, as Django has made it, with its column's label as an attribute."""
    tag, rest = cell[:3], cell[3:]  # `<td` or `<th`
    return mark_safe(tag + format_html(' data-label="{}"', _capitalised(label)) + rest) if label else cell


def _capitalised(label: Any) -> str:
    text = str(label)
    return text[:1].upper() + text[1:]


@register.simple_tag
def tenant_q_filter(cl: Any, spec: Any) -> SafeString:
    """Return a filter of a change list: in the template of the filter's class, or folded in ours.

    Args:
        cl: Django's change list.
        spec: The filter.
    """
    choices = list(spec.choices(cl))
    name = "tenant_q/admin/filter.html" if spec.template == "admin/filter.html" else spec.template
    chosen = next((one["display"] for one in choices if one.get("selected")), "")
    is_active = bool(chosen) and not choices[0].get("selected")
    is_named = is_active or getattr(spec, "is_always_set", False)
    context = {"title": spec.title, "choices": choices, "chosen": chosen, "is_active": is_active, "is_named": is_named}
    return render_to_string(name, context)

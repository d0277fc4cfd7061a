"""Register the pages of workflow runs where Django's admin looks for them."""

from __future__ import annotations

from django.contrib import admin

from tenant_q.admin.runs import WorkflowRunAdmin
from tenant_q.workflows.models import WorkflowRun

if not admin.site.is_registered(WorkflowRun):
    admin.site.register(WorkflowRun, WorkflowRunAdmin)

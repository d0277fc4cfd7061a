"""The tables of a tenant's workflows, in the tenant's schema. The rows are the truth; the broker only delivers steps.

No table refers to another one with a constraint: a tenant's own role may own the tables, and the cluster writes only to
tables whose constraints are known to run no code of that role.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.db import models
from django.utils.translation import gettext_lazy as _

from tenant_q.workflows.states import RunState, StepState


class WorkflowRun(models.Model):
    """One execution of a workflow."""

    id: models.CharField[str, str] = models.CharField(_("id"), max_length=32, primary_key=True)
    workflow: models.CharField[str, str] = models.CharField(_("workflow"), max_length=256)
    version: models.CharField[str, str] = models.CharField(_("version"), max_length=32)
    key: models.CharField[str | None, str | None] = models.CharField(_("key"), max_length=500, null=True)
    cluster: models.CharField[str, str] = models.CharField(_("cluster"), max_length=100)
    state: models.CharField[str, str] = models.CharField(
        _("state"), max_length=12, choices=[(state.value, state.value) for state in RunState]
    )
    plan: models.JSONField[Any, Any] = models.JSONField(_("plan"))
    input: models.JSONField[Any, Any] = models.JSONField(_("input"))
    config: models.JSONField[Any, Any] = models.JSONField(_("configuration"))
    generation: models.IntegerField[int, int] = models.IntegerField(_("generation"), default=1)
    parent: models.CharField[str | None, str | None] = models.CharField(_("parent run"), max_length=32, null=True)
    parent_step: models.CharField[str | None, str | None] = models.CharField(
        _("step of the parent run"), max_length=100, null=True
    )
    created: models.DateTimeField[datetime, datetime] = models.DateTimeField(_("created"))
    started: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("started"), null=True)
    ended: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("ended"), null=True)
    deadline: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("deadline"), null=True)
    look_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("next look"), null=True)
    error: models.TextField[str, str] = models.TextField(_("error"), default="", blank=True)
    by: models.CharField[str, str] = models.CharField(_("by"), max_length=150, default="", blank=True)

    class Meta:
        db_table = "tenant_q_workflows_run"
        verbose_name = _("workflow run")
        verbose_name_plural = _("workflow runs")
        indexes = [
            models.Index(fields=["state", "created"], name="tenant_q_runs_by_state"),
            models.Index(fields=["created"], name="tenant_q_runs_by_age"),
        ]
        constraints = [models.UniqueConstraint(fields=["workflow", "key"], name="tenant_q_one_run_a_key")]

    def __str__(self) -> str:
        return f"{self.workflow} {self.id}"


class WorkflowStep(models.Model):
    """A step of a run, or an item of a step that runs once for each item.

    `index` is -1, or the place of the item. `at_once` is the most items of a mapping step that are ready at once.
    """

    pk = models.CompositePrimaryKey("run", "index", "name")
    run: models.CharField[str, str] = models.CharField(_("run"), max_length=32)
    name: models.CharField[str, str] = models.CharField(_("step"), max_length=100)
    index: models.IntegerField[int, int] = models.IntegerField(_("index"), default=-1)
    item: models.JSONField[Any, Any] = models.JSONField(_("item"), null=True)
    at_once: models.IntegerField[int | None, int | None] = models.IntegerField(_("items at once"), null=True)
    generation: models.IntegerField[int, int] = models.IntegerField(_("generation"), default=1)
    state: models.CharField[str, str] = models.CharField(
        _("state"), max_length=12, choices=[(state.value, state.value) for state in StepState]
    )
    output: models.JSONField[Any, Any] = models.JSONField(_("output"), null=True)
    context: models.JSONField[Any, Any] = models.JSONField(_("context"), null=True)
    attempts: models.IntegerField[int, int] = models.IntegerField(_("attempts"), default=0)
    error: models.TextField[str, str] = models.TextField(_("error"), default="", blank=True)
    task_id: models.CharField[str | None, str | None] = models.CharField(_("task"), max_length=32, null=True)
    wake_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("starts again"), null=True)
    ready_at: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("ready"), null=True)
    started: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("started"), null=True)
    ended: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(_("ended"), null=True)

    class Meta:
        db_table = "tenant_q_workflows_step"
        verbose_name = _("step of a run")
        verbose_name_plural = _("steps of runs")
        indexes = [models.Index(fields=["run", "name", "state", "index"], name="tenant_q_steps_by_state")]

    def __str__(self) -> str:
        return f"{self.name} of {self.run}"


class WorkflowSignal(models.Model):
    """What a run was sent from outside. The first of a name wins."""

    pk = models.CompositePrimaryKey("run", "name")
    run: models.CharField[str, str] = models.CharField(_("run"), max_length=32)
    name: models.CharField[str, str] = models.CharField(_("name"), max_length=100)
    payload: models.JSONField[Any, Any] = models.JSONField(_("payload"), null=True)
    at: models.DateTimeField[datetime, datetime] = models.DateTimeField(_("at"))
    by: models.CharField[str, str] = models.CharField(_("by"), max_length=150, default="", blank=True)

    class Meta:
        db_table = "tenant_q_workflows_signal"
        verbose_name = _("signal to a run")
        verbose_name_plural = _("signals to runs")

    def __str__(self) -> str:
        return f"{self.name} to {self.run}"

"""`python manage.py msworkflow`: list, show, start, cancel and resume workflow runs, draw and check workflows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from django.core.management.base import CommandError, CommandParser

from tenant_q import audit, tenancy
from tenant_q.exceptions import WorkflowError
from tenant_q.management.console import OperatorCommand, positive_integer
from tenant_q.operations import workflow_runs
from tenant_q.support import workflows_app
from tenant_q.support.plurals import counted

if TYPE_CHECKING:
    from tenant_q.workflows import Run
    from tenant_q.workflows.plan import Plan

LISTED = 50
_NAMES = {
    "list": None,
    "show": "RUN",
    "start": "PATH",
    "cancel": "RUN",
    "resume": "RUN",
    "graph": "PATH",
    "check": None,
}
"""What each action takes after its name."""
_BELONGS = {
    "workflow": "list",
    "state": "list",
    "limit": "list",
    "input": "start",
    "key": "start",
    "dry_run": "resume",
    "steps": "resume",
    "mermaid": "graph",
}
"""The action that an option belongs to."""


class Command(OperatorCommand):
    help = (
        "Lists workflow runs, shows one, starts, cancels or resumes it; draws a workflow's graph; with `check`, finds "
        "wrong workflows, and runs that nothing will drive again."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("action", nargs="?", choices=tuple(_NAMES), default="list")
        parser.add_argument("name", nargs="?", metavar="RUN|PATH", help="The id of a run, or the path of a workflow.")
        parser.add_argument("steps", nargs="*", metavar="STEP", help="With resume: the steps to run again.")
        parser.add_argument("--schema", help="The tenant. A run is found without it.")
        parser.add_argument("--workflow", metavar="PATH", help="With list: only the runs of this workflow.")
        parser.add_argument("--state", choices=workflow_runs.STATES, help="With list: only the runs in this state.")
        parser.add_argument(
            "--limit", type=positive_integer, metavar="N", help=f"With list: how many runs; {LISTED} by default."
        )
        parser.add_argument("--input", metavar="JSON", help="With start: the input, a JSON object.")
        parser.add_argument("--key", help="With start: a key; a second start with it finds the same run.")
        parser.add_argument("--dry-run", action="store_true", help="With resume: only show what would run again.")
        parser.add_argument("--mermaid", action="store_true", help="With graph: write it for Mermaid.")
        super().add_arguments(parser)

    def perform(self, options: dict[str, Any]) -> None:
        workflows_app.require()
        _check_arguments(options)
        getattr(self, f"_{options['action']}")(options)

    # Runs

    def _list(self, options: dict[str, Any]) -> None:
        if options["schema"] is None:
            self._count(as_json=options["json"])
            return
        from tenant_q.management import workflow_tables
        from tenant_q.workflows import Run, run_counts

        schema, limit = options["schema"], options["limit"] or LISTED
        found = Run.of(options["workflow"], state=options["state"], limit=limit, schema_name=schema)
        progress = run_counts.progress_of(schema, [one.id for one in found])
        if options["json"]:
            counted = [progress.get(one.id, (0, 0)) for one in found]
            self.write_json(
                [
                    workflow_tables.as_json(one) | {"progress": {"ended": ended, "steps": every}}
                    for one, (ended, every) in zip(found, counted, strict=True)
                ]
            )
        elif found:
            self.show(workflow_tables.run_table(found, progress))
            if len(found) == limit:
                self.write_line(f"The newest {limit}; --limit N lists more, if there are.")
        else:
            self.write_line(f"{schema} has no such workflow runs.")

    def _count(self, *, as_json: bool) -> None:
        from tenant_q.management import workflow_tables

        found = workflow_runs.count_runs()
        logical = {tenancy.physical_schema(name): name for name in tenancy.tenant_names()}
        rows = [workflow_tables.counts_as_json(logical.get(name, name), found[name]) for name in sorted(found)]
        if as_json:
            self.write_json(rows)
        elif rows:
            self.show(workflow_tables.count_table(rows))
        else:
            self.write_line("No tenant has workflow runs; `msworkflow start PATH --schema SCHEMA` starts one.")

    def _show(self, options: dict[str, Any]) -> None:
        from tenant_q.management import workflow_tables
        from tenant_q.workflows import run_counts

        run = _run(options)
        items = run_counts.items_of(run.schema, run.id)
        if options["json"]:
            self.write_json(workflow_tables.details_as_json(run, items))
        else:
            self.show(*workflow_tables.details(run, items))

    def _start(self, options: dict[str, Any]) -> None:
        from tenant_q.workflows import registry

        workflow, input = registry.get(options["name"]), _input(options["input"])
        run = workflow.start(input, key=options["key"], schema_name=options["schema"], by=audit.operator())
        self._say(options, run, f"Run {run.id} of {run.workflow} for {run.schema} is {run.state}.")

    def _cancel(self, options: dict[str, Any]) -> None:
        run = _run(options)
        if not run.cancel(by=audit.operator()):
            raise CommandError(f"Run {run.id} of {run.schema} is {run.refresh().state}: there is nothing to cancel.")
        self._say(options, run.refresh(), f"Run {run.id} of {run.schema} is {run.state}.")

    def _resume(self, options: dict[str, Any]) -> None:
        run, steps = _run(options), options["steps"] or None
        again = run.preview_resume(steps)
        if not options["json"]:
            verb = "would run" if options["dry_run"] else "run"
            self.write_line(f"These steps {verb} again, or are skipped: {', '.join(again) or 'none'}.")
        if not options["dry_run"]:
            run = run.resume(steps, by=audit.operator())
        text = "" if options["dry_run"] else f"Run {run.id} of {run.schema} is {run.state}."
        self._say(options, run, text, steps=again, resumed=not options["dry_run"])

    def _say(self, options: dict[str, Any], run: Run, text: str, **more: Any) -> None:
        from tenant_q.management import workflow_tables

        if options["json"]:
            self.write_json(workflow_tables.as_json(run) | more)
        elif text:
            self.write_line(text)

    # Workflows

    def _graph(self, options: dict[str, Any]) -> None:
        from tenant_q.management import workflow_tables
        from tenant_q.workflows.drawing import mermaid

        plan, states = _plan(options)
        if options["mermaid"]:
            self.stdout.write(mermaid(plan, states).rstrip())
        elif options["json"]:
            self.write_json(workflow_tables.graph_as_json(plan, states))
        else:
            self.show(workflow_tables.graph_table(plan, states))

    def _check(self, options: dict[str, Any]) -> None:
        from tenant_q.operations import workflow_check

        found = workflow_check.check(options["schema"])
        if options["json"]:
            self.write_json(asdict(found))
        else:
            for problem in found.workflows:
                self.write_line(problem)
            for one in found.runs:
                self.write_line(str(one))
        if found.workflows or found.runs:
            raise CommandError(_summary(found))
        if not options["json"]:
            workflows, schemas = counted(found.checked, "workflow"), counted(found.schemas, "schema")
            self.write_line(f"{workflows} and the runs of {schemas} are in order.")


def _check_arguments(options: dict[str, Any]) -> None:
    action = options["action"]
    for name, owner in _BELONGS.items():
        if options[name] not in (None, False, []) and action != owner:
            shown = options["steps"][0] if name == "steps" else f"--{name.replace('_', '-')}"
            raise CommandError(f"{shown} belongs to `msworkflow {owner}`, not to `msworkflow {action}`.")
    wanted = _NAMES[action]
    if options["name"] is None and wanted is not None:
        raise CommandError(f"Give it a name: `msworkflow {action} {wanted}`; {_known_names(wanted)}.")
    if options["name"] is not None and wanted is None:
        raise CommandError(f"`msworkflow {action}` takes no {options['name']!r}; `msworkflow show RUN` shows a run.")
    for name in ("workflow", "state", "limit"):
        if options[name] and not options["schema"]:
            raise CommandError(f"--{name} is for the runs of one tenant; give --schema too.")
    if action == "start" and not options["schema"]:
        raise CommandError("Name the tenant that the run is for: `msworkflow start PATH --schema SCHEMA`.")
    if options["mermaid"] and options["json"]:
        raise CommandError("--mermaid and --json are two formats; give one of them.")


def _known_names(wanted: str) -> str:
    """Return in words where the names come from that `msworkflow` takes."""
    from tenant_q.workflows import registry

    if wanted == "RUN":
        return "`msworkflow list --schema SCHEMA` shows the runs of a tenant"
    paths = [workflow.path for workflow in registry.registered()]
    return f"the workflows are {', '.join(paths[:20])}" if paths else "no workflow is declared"


def _run(options: Mapping[str, Any]) -> Run:
    """Return the run that `msworkflow` was given. Without a tenant it is found in the index of all runs."""
    from tenant_q.workflows import Run

    id, schema = options["name"], options["schema"]
    if schema is None:
        found = workflow_runs.schemas_of(id)
        if len(found) != 1:
            several = f"Several tenants ({', '.join(found)}) have" if found else "No tenant has"
            raise WorkflowError(f"{several} a workflow run {id!r}; name the tenant with --schema.")
        schema = tenancy.logical_schema(found[0])
    return Run.get(id, schema_name=schema)


def _plan(options: Mapping[str, Any]) -> tuple[Plan, Mapping[str, str]]:
    """Return the plan that `msworkflow graph` draws, with the states of the steps if it is that of a run."""
    from tenant_q.workflows import registry

    name = options["name"]
    if "." in name:
        return registry.get(name).plan, {}
    run = _run(options)
    return run.plan, {step.name: step.state for step in run.steps}


def _input(text: str | None) -> Any:
    try:
        return None if text is None else json.loads(text)
    except ValueError as error:
        raise CommandError(f"--input is no JSON ({error}); give an object such as '{{\"order\": 17}}'.") from None


def _summary(found: Any) -> str:
    """Return in one sentence what `msworkflow check` found wrong."""
    runs = sum(one.count for one in found.runs)  # 0 where only schemas cannot be read
    parts = [counted(len(found.workflows), "workflow")] if found.workflows else []
    parts += [counted(runs, "run")] if runs else []
    needs = "needs" if len(found.workflows) + runs <= 1 else "need"
    return f"{' and '.join(parts) or 'A schema'} {needs} attention; each line above says what to do."

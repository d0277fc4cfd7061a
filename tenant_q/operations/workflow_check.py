"""Check the workflows of this code, and find the runs of all tenants that nothing will drive again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from psycopg import sql

from tenant_q import tenancy
from tenant_q.brokers import get_broker
from tenant_q.conf import site_clusters
from tenant_q.exceptions import ForeignCode, WorkflowError
from tenant_q.models import DueWorkflow
from tenant_q.operations import status
from tenant_q.schedules.index_statements import fetch, in_public
from tenant_q.sql import statement
from tenant_q.support.visible import one_line
from tenant_q.workflows import registry, run_index
from tenant_q.workflows.models import WorkflowRun

AT_ONCE = 100
"""The number of schemas that are read in one round trip."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Workflow runs of a tenant that nothing will drive again, or a schema whose runs cannot be read.

    Attributes:
        schema: The schema as PostgreSQL names it.
        problem: What is wrong and the way out, in words that follow the runs or the schema.
        workflow: The path of their workflow; None for the whole schema.
        count: The number of runs; 0 for the whole schema.
        run: The id of one of them.
    """

    schema: str
    problem: str
    workflow: str | None = None
    count: int = 0
    run: str | None = None

    def __str__(self) -> str:
        if not self.count:
            return f"{self.schema}: {self.problem}"
        runs = f"run {self.run}" if self.count == 1 else f"{self.count} runs, such as {self.run},"
        return f"{self.schema}: {runs} of {self.workflow} {self.problem}"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a check of workflows.

    Attributes:
        checked: The number of registered workflows.
        schemas: The number of schemas whose runs were read.
        workflows: What is wrong with the registered workflows.
        runs: The runs that nothing will drive again.
    """

    checked: int
    schemas: int
    workflows: list[str]
    runs: list[Finding]


@dataclass(frozen=True, slots=True)
class _Runs:
    """Open workflow runs of a schema that are alike in what drives them."""

    schema: str
    workflow: str
    cluster: str
    is_lost: bool
    is_unplanned: bool
    count: int
    run: str


def check(schema: str | None = None) -> Report:
    """Check the registered workflows, and the runs of all tenants that have not ended.

    Args:
        schema: The schema of a tenant; None for all tenants.

    Raises:
        UnknownTenant: No tenant has this schema name.
        DatabaseAway: The database cannot be reached.
        BrokerError: A run belongs to a cluster that no setting names, and the broker does not answer.
    """
    names = tenancy.tenant_names() if schema is None else [str(tenancy.get_tenant(schema).schema_name)]
    wrong = workflow_problems()
    known = _Known()
    stale = {name for name, is_gone in run_index.stale_schemas() if not is_gone}
    findings: list[Finding] = []
    read = 0
    for first in range(0, len(names), AT_ONCE):
        tables = _tables([tenancy.physical_schema(name) for name in names[first : first + AT_ONCE]])
        read += len(tables)
        runs, unreadable = _open_runs(tables)
        findings += unreadable
        findings += [finding for one in runs for finding in _judged(one, known, is_indexed=one.schema not in stale)]
    return Report(len(list(registry.registered())), read, wrong, findings)


def workflow_problems() -> list[str]:
    """Return what is wrong with the graphs of the registered workflows, one sentence each."""
    found = []
    for workflow in registry.registered():
        try:
            workflow.plan  # noqa: B018  (it checks the graph)
        except WorkflowError as error:
            found.append(str(error))
    return found


class _Known:
    """The clusters and workflows that can drive a run."""

    def __init__(self) -> None:
        self.workflows = {workflow.path for workflow in registry.registered()}
        self.clusters = set(site_clusters())
        self._has_asked = False

    def has_cluster(self, name: str) -> bool:
        """Return whether a workflow run's cluster is one of the settings, or runs."""
        if name not in self.clusters and not self._has_asked:
            self._has_asked = True
            self.clusters |= {one.name for one in status.clusters(get_broker()) if one.is_ours and not one.is_gone}
        return name in self.clusters


def _tables(schemas: Sequence[str]) -> list[str]:
    """Return the schemas that have a table of workflow runs."""
    return [name for (name,) in fetch(sql.SQL(statement("run_tables")).format(schemas=sql.Literal(list(schemas))))]


def _open_runs(schemas: Sequence[str]) -> tuple[list[_Runs], list[Finding]]:
    """Return the open workflow runs of schemas, and a finding for each schema that cannot be read."""
    if not schemas:
        return [], []
    table = WorkflowRun._meta.db_table
    parts = [
        sql.SQL(statement("open_runs")).format(
            schema=sql.Literal(schema),
            runs=sql.Identifier(schema, table),
            due=in_public(DueWorkflow._meta.db_table),
        )
        for schema in schemas
    ]
    try:
        with tenancy.in_patient_transaction():
            tenancy.require_plain_tables(schemas, table)
            return [_Runs(*row) for row in fetch(sql.SQL(" UNION ALL ").join(parts))], []
    except (*tenancy.DATABASE_ERRORS, ForeignCode) as error:
        if len(schemas) == 1:
            return [], [Finding(schemas[0], f"its table {table} cannot be read: {one_line(error)}")]
    found = [_open_runs([schema]) for schema in schemas]  # at least one of them cannot be read
    return [one for runs, _ in found for one in runs], [one for _, wrong in found for one in wrong]


def _judged(one: _Runs, known: _Known, *, is_indexed: bool) -> Iterator[Finding]:
    """Yield what is wrong with open workflow runs, and the way out."""
    is_one = one.count == 1
    has, belongs = ("has", "belongs") if is_one else ("have", "belong")

    def finding(problem: str) -> Finding:
        return Finding(one.schema, problem, one.workflow, one.count, one.run)

    if not is_indexed:
        yield finding(
            f"{has} a table that is not in the index of runs, or lacks its triggers; a scheduler puts it there within "
            "a minute, otherwise its log says why"
        )
    elif one.is_lost or one.is_unplanned:
        lack = "no entry in the index of runs" if one.is_lost else "no time for the next look"
        yield finding(
            f'{has} {lack}; run in PostgreSQL: UPDATE "{one.schema}".{WorkflowRun._meta.db_table} SET look_at = now() '
            "WHERE ended IS NULL"
        )
    if not known.has_cluster(one.cluster):
        yield finding(
            f"{belongs} to the cluster {one.cluster!r}, which no setting names and which does not run; start it with "
            f"`python manage.py mscluster --name {one.cluster}`, and add it to Q_CLUSTER['ALT_CLUSTERS']"
        )
    if one.workflow not in known.workflows:
        runs = f"cancel {one.run}" if is_one else "cancel RUN"
        yield finding(
            f"{belongs} to a workflow that this code does not declare; declare it in a module 'workflows' of an "
            f"installed app, or cancel what is left of it: `msworkflow {runs} --schema {one.schema}`"
        )

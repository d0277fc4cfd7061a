"""Decide what a schedule or a task of a tenant's staff may name: offered functions, and harmless options."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from django.utils.translation import gettext as _
from django_q.models import Schedule, Task
from psycopg import sql

from tenant_q import tenancy
from tenant_q.conf import conf, site_clusters
from tenant_q.exceptions import BadSchedule, NotOffered
from tenant_q.package.options import KEYWORD_OPTIONS
from tenant_q.package.package import CODE
from tenant_q.schedules.arguments import parse_arguments
from tenant_q.schedules.code_origin import as_declared
from tenant_q.schedules.offered import is_offered
from tenant_q.sql import statement

GUARDED = ("func", "hook", "args", "kwargs", "intended_date_kwarg", "cluster")
"""The fields of a schedule that determine which code runs, and with which arguments."""
HARMLESS_OPTIONS = ("task_name", "group", "ack_failure")
"""The options that staff may set. The others name code, use workers or memory of others, or hide results."""
_COMPARED = ("id", "name", "func", "hook", "args", "kwargs", "intended_date_kwarg", "cluster")
_RESERVED = {*KEYWORD_OPTIONS, "task_name", "q_options", "schema_name"}


def is_limited() -> bool:
    """Return whether staff may name only what is offered, because the current schema is a tenant's."""
    return tenancy.current_schema() != tenancy.public_schema()


def problems(row: Schedule) -> Iterator[tuple[str, str]]:
    """Yield what a schedule names that is not offered to staff: the field, and a sentence. Nothing is imported."""
    if not is_offered(row.func):
        yield "func", _("%(path)s is not a function that is offered here.") % {"path": row.func or "-"}
    if row.hook and not is_offered(row.hook):
        yield "hook", _("%(path)s is not a function that is offered here.") % {"path": row.hook}
    if row.cluster and row.cluster not in site_clusters():
        yield "cluster", _("%(name)s is not a cluster of this site.") % {"name": row.cluster}
    if row.intended_date_kwarg in _RESERVED:
        yield (
            "intended_date_kwarg",
            _("%(name)s is not an argument of the function.") % {"name": row.intended_date_kwarg},
        )
    refused = _refused_options(row)
    if refused:
        yield "kwargs", _("These are options of the task that cannot be set here: %(names)s.") % {"names": refused}


def unlisted(schemas: Sequence[str]) -> list[tuple[str, Schedule, list[str]]]:
    """Return the schedules of several tenants that are not offered to their staff, with a few statements.

    Those that are as code declares them are left out.

    Args:
        schemas: The schemas as PostgreSQL names them.

    Returns:
        The schema, the row with the compared fields only, and the reasons.

    Raises:
        DatabaseError: A table is locked or cannot be read.
        ForeignCode: A table would run code of another role.
        DatabaseAway: The database cannot be reached.
    """
    if not schemas:
        return []
    parts = [
        sql.SQL(statement("staff_fields")).format(
            schema=sql.Literal(schema), table=sql.Identifier(schema, Schedule._meta.db_table)
        )
        for schema in schemas
    ]
    # Not with UNION, which would cast columns of different types, perhaps with a function of the table's owner.
    with tenancy.in_patient_transaction(), tenancy.raw_cursor() as cursor:
        tenancy.require_plain_tables(schemas, Schedule._meta.db_table)
        cursor.execute(sql.SQL(";\n").join(parts))
        found = list(cursor.fetchall())
        while cursor.nextset():
            found += cursor.fetchall()
    rows = [(schema, Schedule(**dict(zip(_COMPARED, values, strict=True)))) for schema, *values in found]
    reasons = ((schema, row, [reason for _field, reason in problems(row)]) for schema, row in rows)
    found_here = [one for one in reasons if one[2]]
    from_code = as_declared([(schema, row) for schema, row, _reasons in found_here])
    return [one for one in found_here if (one[0], one[1].pk) not in from_code]


def refuse_foreign(schema: str, row: Schedule) -> None:
    """Refuse to fire a schedule that SQL of a tenant may have written, unless the project offers what it runs.

    This applies with `TENANT_Q["isolation"]` "login", where a tenant's SQL is not trusted. Otherwise its SQL could have
    the cluster import and call what it writes into such a row.

    Args:
        schema: The schema name of the tenant.
        row: The schedule.

    Raises:
        BadSchedule: The project neither offers nor declares the function, the hook or the options.
        DatabaseAway: The database cannot be reached.
    """
    if conf().isolation != "login" or schema == tenancy.public_schema():
        return
    for _field, reason in problems(row):
        if not as_declared([(tenancy.physical_schema(schema), row)]):
            raise BadSchedule(
                f"{reason} With TENANT_Q['isolation'] 'login' only what is offered is fired: name it in "
                "TENANT_Q['admin_functions'], or declare the schedule in code."
            )
        return


def is_listed(row: Schedule) -> bool:
    """Return whether all that a schedule runs is offered to its tenant's staff: its function, hook and options."""
    return not any(_problems_for_staff(row))


def refuse_unlisted(row: Schedule) -> None:
    """Raise `NotOffered` if a schedule runs what is not offered to the staff of the current tenant."""
    if is_limited():
        for _field, reason in _problems_for_staff(row):
            raise NotOffered(reason)


def _problems_for_staff(row: Schedule) -> Iterator[tuple[str, str]]:
    """Yield the problems of a schedule of the current tenant. The options that its declaration in code has are none."""
    for field, reason in problems(row):
        if field != "kwargs" or not as_declared([(tenancy.physical_schema(tenancy.current_schema()), row)]):
            yield field, reason


def refuse_again(task: Task, origin: str | None) -> None:
    """Raise `NotOffered` if the current tenant's staff may not run a task again, because what it runs is not offered.

    A task that code enqueued may run again with the arguments of its row. A task from a schedule or the admin may only
    if its function and its hook are offered.

    Args:
        task: The row of the task.
        origin: Who enqueued it, as the row's signature says.
    """
    if origin == CODE or not is_limited():
        return
    for path in filter(None, (task.func, task.hook)):
        if not is_offered(path):
            raise NotOffered(
                _("it came from a schedule, and %(path)s is not a function that is offered here.") % {"path": path}
            )


def _refused_options(row: Schedule) -> str:
    """Return the options in a schedule's keyword arguments that are not offered to its tenant's staff."""
    try:
        _args, kwargs = parse_arguments(None, row.kwargs)
    except BadSchedule:  # such a schedule runs nothing
        return ""
    options = kwargs.get("q_options")
    names = {name for name in kwargs if name in _RESERVED - {"q_options"}}
    names |= {str(name) for name in options} if isinstance(options, dict) else set()
    return ", ".join(sorted(names - set(HARMLESS_OPTIONS)))

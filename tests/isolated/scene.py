"""A site with a cluster, a hostile tenant and two others, and what shows that nothing of the others was touched."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import psycopg

from tenant_q.brokers import get_broker
from tenant_q.tenancy import in_schema
from tenant_q.tenancy.credentials import password_of
from tenant_q.tenancy.role_names import role_name
from tenant_q.utils import QUtilities
from tests.conftest import RunningCluster, wait_until
from tests.isolated import attack_tasks, attacks, witness
from tests.isolated.arming import ATTACKER, VICTIM, Names
from tests.isolated.site import Site
from tests.schemas import TENANTS

# What PostgreSQL answers to who may not: no right, no such option of a grant, no password for dblink or a wrong one.
# Another error would show a mistake in the statement.
REFUSED = {"42501", "28000", "28P01", "2F003", "0LP01"}


def names_of(site: Site, large_object: int, owners: psycopg.Connection[Any]) -> Names:
    return Names(
        own=ATTACKER,
        own_role=role_name(site.database, ATTACKER),
        victim=VICTIM,
        victim_role=role_name(site.database, VICTIM),
        database=site.database,
        large_object=large_object,
        owner_pid=owners.info.backend_pid,
        host=owners.info.host,
    )


def statements(attack: attacks.Attack, names: Names) -> list[str]:
    words = asdict(names) | {"mark": witness.MARK}
    return [statement.removeprefix("~").format(**words) for statement in attack.statements]


def not_refused(attack: attacks.Attack, outcomes: list[Any]) -> list[Any]:
    """Return the outcomes of statements that should have been refused, and were not, or for another reason."""
    assert outcomes and len(outcomes) % len(attack.statements) == 0, outcomes
    marked = zip(itertools.cycle(attack.statements), outcomes, strict=False)
    return [outcome for statement, outcome in marked if not statement.startswith("~") and outcome[1] not in REFUSED]


def read_elsewhere(outcomes: Any) -> list[Any]:
    """Return what of the outcomes shows a value of somebody else, unless it is the statement itself that is quoted."""
    own = witness.MARK + ATTACKER
    return [one for one in outcomes if one[1] == "done" and witness.MARK in str(one[2]).replace(own, "")]


class Scene:
    """Where hostile tasks run. It is used while this process is one of the site's."""

    def __init__(self, site: Site, names: Names, cluster: RunningCluster) -> None:
        self.site = site
        self.names = names
        self.cluster = cluster
        self.usual: dict[str, Any] = {}

    def commit(self, func: str, *args: Any, schema: str = ATTACKER, **options: Any) -> Any:
        """Have the cluster run a task of a tenant. Returns its result, and raises what it failed with."""
        with in_schema(schema):
            id = QUtilities.add_async_task(func if "." in func else f"{attack_tasks.__name__}.{func}", *args, **options)
        task = wait_until(lambda: QUtilities.fetch_task(id, schema_name=schema), 60, f"the task {func} of {schema}")
        assert task.success, task.result
        return task.result

    def end_sessions(self) -> None:
        """End the sessions of the attacker, so that its next task has to log in."""
        self.site.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", self.names.own_role)

    def password(self) -> str:
        """Return the attacker's password, which a task can read in Django's settings while it runs."""
        return password_of(self.site.database, self.names.own_role, 1)

    def look_around(self) -> dict[str, Any]:
        """Return what the next task of each tenant finds."""
        return {schema: self.commit("surroundings", schema=schema) for schema in TENANTS}

    @contextmanager
    def nothing_elsewhere(self, *, do_others_run: bool = False) -> Iterator[None]:
        """Fail if anything of others was changed, or if the next tasks do not find what they usually find.

        Parameters: `do_others_run`, whether tasks of other tenants run in the block, which write their own rows.
        """
        self.usual = self.usual or self.look_around()
        before = witness.look(self.site, ATTACKER, self.names.own_role)
        yield
        wait_until(lambda: get_broker().counts().open == 0, what="the hostile tasks to be done")
        self.end_sessions()
        after = witness.look(self.site, ATTACKER, self.names.own_role)
        changed = witness.changes(before, after)
        of_tasks = ("django_q_task", "shop_report_id_seq") if do_others_run else ()
        assert {name: rows for name, rows in changed.items() if not (of_tasks and name.endswith(of_tasks))} == {}
        found = self.look_around()
        assert {
            (schema, name): [
                row for row in [*one, *found[schema][name]] if row not in one or row not in found[schema][name]
            ]
            for schema, usual in self.usual.items()
            for name, one in usual.items()
            if found[schema][name] != one
        } == {}
        assert self.site.sql("SELECT * FROM public.prize") == []
        assert self.cluster.process.poll() is None

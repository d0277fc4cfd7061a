"""Probe tenants' roles: check every right by the catalogue, then attempt what they must not be able to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from django.db import transaction
from django.utils import timezone

from tenant_q import audit, tenancy
from tenant_q.conf import conf
from tenant_q.exceptions import ProvisioningError
from tenant_q.models import TenantRole
from tenant_q.provisioning.admin_connection import OLDEST
from tenant_q.provisioning.probe import attempts, catalogue
from tenant_q.provisioning.probe.report import Finding, ProbeReport, Problem, merged
from tenant_q.provisioning.probe.sessions import logs_in, owner_session
from tenant_q.provisioning.probe.subjects import Subjects, find_subjects
from tenant_q.support.log_labels import get_logger
from tenant_q.support.plurals import counted

logger = get_logger("tenant_q.provisioning")

Progress = Callable[[str, int], None]
# How many statements that close something the finding of an attempt repeats.
_REPEATED = 5


def probe_tenants(schemas: Iterable[str] | None = None, *, actor: str, progress: Progress | None = None) -> ProbeReport:
    """Find out whether the roles of tenants can reach anything outside of their schemas.

    The catalogue is checked for every right of each role, over a session of the owner. Then each role attempts reads,
    writes, locks, calls, role switches and file access, over a session that is opened as a worker opens it; all is
    rolled back. The result is recorded in the tenants' roles and as an audit record. Under "path" the sessions are
    those of "login", so that a site can be probed before it changes.

    Args:
        schemas: The tenants, by schema name; None for all that have a role.
        actor: Who asked for it.
        progress: Called with what is being done and how many of twice the tenants are done since the last call.

    Raises:
        ProvisioningError: A tenant has no role, or the server is older than PostgreSQL 16.
        ConfigurationError: A setting is missing or wrong.
        DatabaseAway: The database cannot be reached.
    """
    started, mode = time.monotonic(), "role" if conf().isolation == "role" else "login"
    report = progress or (lambda text, count: None)
    with owner_session() as owner:
        if owner.info.server_version < OLDEST:
            raise ProvisioningError(
                f"The server is PostgreSQL {owner.info.server_version // 10000}, whose roles cannot separate tenants; "
                "upgrade it to PostgreSQL 16 or newer."
            )
        subjects = find_subjects(schemas, owner)
        checked = _check(owner, subjects, report)
        made = _attempt(owner, subjects, mode, report, _superusers(checked))
    problems = [*subjects.problems, *_owner_problems(mode), *(problem for one in made for problem in one.problems)]
    crossings = [
        *checked.crossings,
        *(_with_closings(one, checked.crossings) for done in made for one in done.crossings),
    ]
    kinds = [title for title in (made[0].titles if made else ()) if all(title in one.titles for one in made)]
    found = ProbeReport(
        tenants=tuple(one.schema for one in subjects.tenants),
        mode=mode,
        rights=checked.rights,
        attempts=sum(len(one.titles) for one in made),
        kinds=tuple(kinds),
        crossings=tuple(merged(crossings)),
        warnings=tuple(merged(checked.warnings)),
        problems=tuple(problems),
        seconds=time.monotonic() - started,
    )
    _record(found, actor, is_site=schemas is None)
    return found


def _check(owner: psycopg.Connection[Any], subjects: Subjects, report: Progress) -> catalogue.Checked:
    """Check the rights of the probed tenants' roles, some at a time, and with the first of them those of the group."""
    rights, crossings, warnings = 0, list[Finding](), list[Finding]()
    rest = [] if subjects.group is None else [subjects.group]
    for batch in catalogue.batches(subjects.tenants):
        report(f"rights of {batch[0].schema}", 0)
        found = catalogue.check(owner, [*batch, *rest], subjects.group_name, subjects.shared)
        rights += found.rights
        crossings += found.crossings
        warnings += found.warnings
        rest = []
        report(f"rights of {batch[-1].schema}", len(batch))
    return catalogue.Checked(rights, tuple(merged(crossings)), tuple(merged(warnings)))


def _attempt(
    owner: psycopg.Connection[Any], subjects: Subjects, mode: str, report: Progress, superusers: set[str]
) -> list[attempts.Attempted]:
    """Make every attempt as each of the probed tenants' roles, but none as a superuser, to whom nothing is refused."""
    targets = attempts.find_targets(owner, subjects.others, subjects.group_name)
    made = []
    for tenant in (one for one in subjects.tenants if one.schema not in superusers):
        report(f"attempts of {tenant.schema}", 0)
        try:
            made.append(attempts.attempt(tenant, subjects.victim_of(tenant), targets, mode))
        except ProvisioningError as error:  # the others are probed all the same
            made.append(attempts.Attempted((), problems=(Problem(tenant.schema, str(error)),)))
        report(f"attempts of {tenant.schema}", 1)
    return made


def _superusers(checked: catalogue.Checked) -> set[str]:
    return {name for one in checked.crossings if one.right == "SUPERUSER" for name in one.tenants}


def _owner_problems(mode: str) -> list[Problem]:
    if mode != "login" or not logs_in(None, None):
        return []
    return [
        Problem(
            None,
            'This project\'s role can log in without a password, as then could every task, so the isolation "login" '
            "proves nothing; ask for scram-sha-256 in pg_hba.conf, and take client certificates out of DATABASES.",
        )
    ]


def _with_closings(one: Finding, causes: Sequence[Finding]) -> Finding:
    """Return the finding of an attempt with the statements that close what the catalogue says of its tenant."""
    closings = dict.fromkeys(cause.closes for cause in causes if set(cause.tenants) & set(one.tenants) and cause.closes)
    return replace(one, closes="; ".join(list(closings)[:_REPEATED]))


def _record(found: ProbeReport, actor: str, *, is_site: bool) -> None:
    """Record what a probe has found in the tenants' roles, and as an audit record."""
    alias = tenancy.database_alias()
    after = {
        "mode": found.mode,
        "rights": found.rights,
        "attempts": found.attempts,
        "crossings": len(found.crossings),
        "problems": len(found.problems),
    }
    with tenancy.detect_outages(), tenancy.as_owner_in_public(), transaction.atomic(using=alias):
        for crossings, schemas in _by_crossings(found).items():
            rows = TenantRole.objects.using(alias).filter(schema_name__in=schemas)
            rows.update(probed=timezone.now(), crossings=crossings)
        only = None if is_site or len(found.tenants) != 1 else found.tenants[0]
        target = "" if only else counted(len(found.tenants), "tenant")
        audit.record(actor, "probe", schema=only, target=target, after=after)
    log = logger.info if found.is_closed else logger.error
    log(
        "Probed %s: %s, %s",
        counted(len(found.tenants), "tenant"),
        counted(len(found.crossings), "crossing"),
        counted(len(found.problems), "problem"),
        event="provisioning.probed",
        extra={"schema": only},
    )


def _by_crossings(found: ProbeReport) -> dict[int, list[str]]:
    """Return the tenants whose probe was completed, by the number of their crossings."""
    schemas: dict[int, list[str]] = {}
    for schema in filter(found.is_proven, found.tenants):
        schemas.setdefault(found.crossings_of(schema), []).append(schema)
    return schemas

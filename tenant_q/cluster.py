"""The parent: checks what the cluster needs, forks the sentinel, passes signals on, exits with the truth."""

from __future__ import annotations

import os
from dataclasses import dataclass
from multiprocessing import get_context

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseFailure
from setproctitle import setproctitle

from tenant_q import brokers, tenancy
from tenant_q.checks import configuration_problems
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, ConfigurationError, TenantQError
from tenant_q.role import StopFlag
from tenant_q.sentinel import KILL, STOP, Plan, Sentinel


@dataclass(frozen=True)
class Surroundings:
    """What a cluster finds when it starts."""

    cluster: str
    broker: str
    database: str
    tenants: int
    excluded: tuple[str, ...]
    warnings: tuple[str, ...]


def survey() -> Surroundings:
    """Check settings, broker and database, and say what is there.

    Raises `TenantQError` with one sentence about the first thing that is missing, and how to mend it.
    """
    try:
        found = configuration_problems()
    except ImproperlyConfigured as error:
        raise ConfigurationError(str(error)) from error
    if found:
        raise ConfigurationError(found[0])
    broker = brokers.get_broker()
    try:
        broker.ping()
        info, warnings = broker.info(), broker.warnings()
    except BrokerError as error:
        raise BrokerError(f"{error}. Start the broker, or set Q_CLUSTER to one that runs.") from error
    database, tenants = _database()
    excluded = tuple(sorted(conf().excluded_schemas))
    return Surroundings(conf().cluster, info, database, tenants, excluded, tuple(warnings))


def _database() -> tuple[str, int]:
    connection = tenancy.tenant_connection()
    settings = connection.settings_dict
    place = (
        f"{settings.get('NAME')} at {settings.get('HOST') or settings.get('OPTIONS', {}).get('host') or 'localhost'}"
    )
    try:
        connection.ensure_connection()
        version = connection.connection.info.server_version
        return f"PostgreSQL {version // 10000}.{version % 10000}, {place}", tenancy.tenant_count()
    except DatabaseFailure as error:
        reason = " ".join(str(error).split())
        raise TenantQError(
            f"The database {place} cannot be used: {reason}. Start it, or mend DATABASES; "
            "a new one needs `python manage.py migrate_schemas`."
        ) from error


def run(plan: Plan) -> int:
    """Run a cluster until it is told to stop, or ends by itself. Returns the exit code: 0 only for an orderly end."""
    tenancy.close_connections()
    setproctitle(f"mscluster {conf().cluster} parent")
    flag = StopFlag()
    orders, order = os.pipe()
    try:
        process = get_context("fork").Process(target=_sentinel, args=(plan, orders, order), name="sentinel")
        process.start()
        os.close(orders)
        passed_on = 0
        while process.is_alive():
            flag.wait(1.0, process.sentinel)
            for _ in range(flag.count - passed_on):
                _say(order, STOP if passed_on == 0 else KILL)
                passed_on += 1
        process.join()
        return 0 if process.exitcode == 0 else 1
    finally:
        os.close(order)
        flag.restore()


def _say(order: int, what: bytes) -> None:
    try:
        os.write(order, what)
    except BrokenPipeError:  # the sentinel is gone already; its exit code tells
        return


def _sentinel(plan: Plan, orders: int, order: int) -> None:
    os.close(order)
    tenancy.drop_inherited_connections()
    brokers.forget_brokers()
    raise SystemExit(Sentinel(plan, orders).run())

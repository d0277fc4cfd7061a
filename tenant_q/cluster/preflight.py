"""Check before a cluster starts that everything is there that it needs, and describe it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import redis
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseFailure
from django.db import connections

from tenant_q import brokers, tenancy
from tenant_q.checks import configuration_problems
from tenant_q.conf import conf
from tenant_q.exceptions import BrokerError, ConfigurationError, TenantQError
from tenant_q.models import TenantRecord
from tenant_q.schedules import catalogue, index_rights
from tenant_q.support.error_kinds import is_refused_login
from tenant_q.support.visible import one_line


@dataclass(frozen=True)
class Surroundings:
    """The servers, the tenants and the warnings that a cluster finds when it starts."""

    cluster: str
    broker: str
    database: str
    tenants: int
    excluded: tuple[str, ...]
    warnings: tuple[str, ...]


def survey() -> Surroundings:
    """Make the preflight check of settings, broker and database, and describe them.

    Raises:
        TenantQError: Something is missing. The message is one sentence about the first problem and its solution.
    """
    try:
        found = configuration_problems()
    except ImproperlyConfigured as error:
        raise ConfigurationError(str(error)) from error
    if found:
        raise ConfigurationError(found[0])
    if conf().metrics_port and find_spec("prometheus_client") is None:
        raise ConfigurationError(
            "TENANT_Q['metrics_port'] needs prometheus_client; install tenant-q with the extra 'metrics', or remove it."
        )
    broker = brokers.get_broker()
    try:
        broker.ping()
        info, warnings = broker.info(), [*broker.warnings(), *_test_queue()]
    except BrokerError as error:
        raise BrokerError(f"{str(error).rstrip('.')}. {_way_out(error)}") from error
    database, tenants = _database()
    with tenancy.detect_outages():
        for connection in tenancy.switched_connections():
            _refuse_shared_sessions(connection)
        warnings += tenancy.note_role_settings()
    index_rights.require_index()
    catalogue.require_shared(TenantRecord._meta.db_table, "tenants")
    if conf().isolation != "path":
        warnings += _isolation()
    tenancy.tenants_to_schedule()  # the project's own function may fail
    excluded = tuple(sorted(conf().excluded_schemas))
    return Surroundings(conf().cluster, info, database, tenants, excluded, tuple(warnings))


def _way_out(error: BrokerError) -> str:
    """Return what the preflight check advises about a broker that does not serve, by what its client raised."""
    cause = error.__cause__
    if isinstance(cause, redis.RedisError):
        if is_refused_login(cause):
            return "Correct the user name and the password in Q_CLUSTER."
        if isinstance(cause, redis.BusyLoadingError):
            return "Wait until it has loaded its data."
        if not isinstance(cause, redis.ConnectionError | redis.TimeoutError):
            return "Correct that on the server, or set Q_CLUSTER to another one."
    return "Start the broker, or set Q_CLUSTER to one that runs."


def _isolation() -> list[str]:
    from tenant_q.cluster import isolation_preflight  # imports what no other project needs

    return isolation_preflight.require_isolation()


def _test_queue() -> list[str]:
    name = tenancy.database_of_tests()
    text = f"This cluster serves the test queue of database {name!r} and not the project's; see TENANT_Q['test_queue']."
    return [] if name is None else [text]


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
    except tenancy.DATABASE_ERRORS as error:  # the tenancy packages let the driver's own through
        reason = one_line(error)
        # A server that refuses the connection by a message of its own runs.
        way_out = "Correct" if connection.connection is not None or "FATAL:" in reason else "Start it, or correct"
        raise TenantQError(
            f"The database {place} cannot be used: {reason}. {way_out} DATABASES; "
            "a new one needs `python manage.py migrate_schemas`."
        ) from error


def _refuse_shared_sessions(connection: Any) -> None:
    """Refuse in the preflight check a pooler that shares sessions between transactions.

    The schema is a setting of the session, so a task could run in another tenant's schema.

    A connection through a pooler has a process id that is not the backend's. Whether the pooler shares sessions is
    tried: while a second connection holds a transaction open, the first connection must still have its own session.

    Raises:
        ConfigurationError: The connection leads to such a pooler.
    """
    own = _backend(connection)
    if connection.connection.info.backend_pid == own:
        return
    other = connections.create_connection(connection.alias)
    try:
        other.set_autocommit(False)
        _backend(other)
        kept = _backend(connection) == own
    except DatabaseFailure:  # statement pooling knows no transactions
        kept = False
    finally:
        other.close()
    if not kept:
        raise ConfigurationError(
            f"DATABASES[{connection.alias!r}] leads to a pooler that shares sessions between transactions, so a task "
            "could run in another tenant's schema: set it to session pooling, or connect without it."
        )


def _backend(connection: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_catalog.pg_backend_pid()")
        return int(cursor.fetchone()[0])

"""The table of all settings.

Each attribute of `Configuration` that a key sets also describes that key: its place, default, limits and meaning.
`OTHERS` has the keys of `Q_CLUSTER` that Django-Q2 or a broker reads, and those without effect. The checks, `conf()`
and the tables in `docs/reference/settings.md` follow from both; `scripts/write_settings.py` writes the page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, get_type_hints
from zoneinfo import ZoneInfo

from tenant_q.conf import rules
from tenant_q.conf.setting import Setting, written_types

_MIB = 1024 * 1024


def _q(default: Any, help: str, *, shown: str | None = None, **facts: Any) -> Any:
    """Describe a key of `Q_CLUSTER` in the table of settings, as an attribute of the configuration."""
    return _attribute("Q_CLUSTER", default, help, shown, facts)


def _ours(default: Any, help: str, *, shown: str | None = None, **facts: Any) -> Any:
    """Describe a key of `TENANT_Q` in the table of settings, as an attribute of the configuration."""
    return _attribute("TENANT_Q", default, help, shown, facts)


def _attribute(place: str, default: Any, help: str, shown: str | None, facts: Mapping[str, Any]) -> Any:
    as_shown = shown or f"`{default!r}`".replace("'", '"')
    setting = Setting(place=place, default=as_shown, help=help, **facts)
    return field(default=default, repr=not setting.is_secret, metadata={"setting": setting})


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """The values of all settings in the table, with every default filled in. Times are in seconds."""

    site: str = _q(
        "default", "the site: part of every signature, and the default of `cluster_name`", key="name", rule=rules.NAME
    )
    cluster: str = _q(
        "default", "the cluster's own name, where a site has several clusters",
        key="cluster_name", shown="`name`", rule=rules.NAME,
    )  # fmt: skip
    workers: int = _q(
        0,
        "worker processes; 0 for the default: the number of processors in the cluster's CPU affinity (`taskset`, a "
        "container's CPU set), limited by the CPU quota of its control group",
        unit="processes", minimum=0, shown="the processors it may use",
    )  # fmt: skip
    timeout: int | None = _q(
        None, "how long a task may run; a task that ignores its timeout is killed 3 seconds later",
        unit="seconds", minimum=1,
    )  # fmt: skip
    max_attempts: int = _q(
        1, "how often a failing task is started in total; 0 for no limit",
        unit="starts", minimum=0, differs="0 by default",
    )  # fmt: skip
    ack_failures: bool = _q(False, "whether a failed task is never started again, regardless of `max_attempts`")
    recycle: int = _q(
        5000, "the number of tasks after which a worker is replaced by a new one",
        unit="tasks", minimum=1,
        differs="500 by default; a worker here runs 500 tasks in a fraction of a second, and a new one has to look up "
        "each tenant again",
    )  # fmt: skip
    max_rss: int | None = _q(None, "the memory use above which a worker is replaced by a new one", unit="kB", minimum=0)
    cpu_affinity: int = _q(0, "how many processors a worker may use; 0 for all", unit="processors", minimum=0)
    save_limit: int = _q(
        250,
        "successes kept for each tenant; 0 for all, -1 for none. The default does not apply where `keep_successes` is "
        "set. Failures are kept unless `keep_failures` is set",
        unit="rows",
        differs="applies to each tenant; old rows are deleted beside saving, and no row before it is four leases old",
    )  # fmt: skip
    save_limit_per: str | None = _q(
        None, 'apply `save_limit`, and `rows` below, to each `"group"`, `"name"` or `"func"`', rule=rules.SAVE_LIMIT_PER
    )
    cache: str = _q("default", "the alias in `CACHES` for cached results", differs="keys contain the schema")
    cached: bool | int = _q(
        False, "whether results are kept in that cache instead of the table: `True`, or for how long",
        unit="seconds", minimum=0,
    )  # fmt: skip
    scheduler: bool = _q(True, "whether this cluster runs schedules")
    catch_up: bool | int = _q(
        False,
        "which missed runs of a schedule are made up for: True for each of them, False for one, a number from 2 on for "
        "at most that many, the latest ones",
        unit="runs", rule=rules.CATCH_UP, differs="True by default; no numbers",
    )  # fmt: skip
    time_zone: str | None = _q(None, "the time zone of schedules", shown="`TIME_ZONE`", rule=rules.TIME_ZONE)
    sync: bool = _q(
        False, "run every task immediately, in the caller",
        differs="an error in the task is raised in the caller, after its failed row is saved",
    )  # fmt: skip
    log_level: str = _q(
        "INFO", "the level of the logger `tenant_q`, where the project does not configure logging", rule=rules.LOG_LEVEL
    )

    lease: float = _ours(
        15, "after a whole machine died, its tasks start elsewhere after this time", unit="seconds", minimum=1
    )
    grace: float = _ours(
        30, "how long running tasks may continue after SIGTERM, before they are killed and given back",
        unit="seconds", minimum=0,
    )  # fmt: skip
    max_deliveries: int = _ours(
        3, "how often a task that kills its worker is started, before it is given up", unit="starts", minimum=1
    )
    retry_delay: float = _ours(
        1, "the delay before the second start of a failed task that has attempts left", unit="seconds", minimum=0
    )
    retry_backoff: float = _ours(
        2, "the factor by which each further delay grows; a delay is at most an hour", unit="factor", minimum=1
    )
    retry_jitter: float = _ours(
        0.25, "the share of itself by which such a delay is shortened at random", unit="share", minimum=0, maximum=1
    )
    keep_successes: dict[str, Any] | None = _ours(  # noqa: RUF009  (nobody changes the dict)
        None,
        'how long each tenant\'s successes are kept: `{"days": 30, "rows": 1000}`, or one of the two; what exceeds '
        "either is deleted. The last outcome of a schedule stays",
        unit="days, rows", rule=rules.KEEP,
    )  # fmt: skip
    keep_failures: dict[str, Any] | None = _ours(  # noqa: RUF009
        None, "how long each tenant's failures are kept, in the same form; without it they are kept for good",
        unit="days, rows", rule=rules.KEEP,
    )  # fmt: skip
    log_successes: bool = _ours(False, "whether the log has each success at INFO instead of DEBUG")
    on_commit: bool = _ours(False, "whether tasks are enqueued when the current transaction commits")
    tenant_cache_seconds: float = _ours(30, "how long a process caches a tenant's row", unit="seconds", minimum=0)
    schedule_spread: float = _ours(
        0, "each schedule starts later by up to this time; the delay of a schedule is always the same",
        unit="seconds", minimum=0,
    )  # fmt: skip
    databases: tuple[str, ...] | None = _ours(
        None, "further databases whose connections are switched to the task's schema, besides the tenants' own",
        unit="aliases", item_problem=rules.database_problem,
    )  # fmt: skip
    schedules: tuple[Any, ...] | dict[str, Any] = _ours(  # noqa: RUF009  (nobody changes the dict)
        (),
        "schedules of every chosen tenant, as of `@schedule`: dicts with `func`, or a dict of them by their names",
        unit="schedules",
    )
    release: str | int | None = _ours(
        None,
        "the release of the code, by which a newer one is known: a number, or a text whose numbers are compared as "
        "numbers, such as `2026.11.3`. Without it, that whose schedules were first seen last is the newer one",
        unit="version",
        rule=rules.RELEASE,
    )
    ready_tenants: str | None = _ours(
        None, "a function that takes a queryset of tenants and returns those that may be served yet", unit="path"
    )
    admin_functions: tuple[str, ...] = _ours(
        (),
        "what a tenant's staff may name in schedules besides the `tasks` of the tenants' apps: functions by their "
        'dotted paths, or `"billing.reports.*"` for all functions that a module defines',
        unit="paths", item_problem=rules.function_problem,
    )  # fmt: skip
    signed_results: bool = _ours(
        False, "whether results are read only from rows that a cluster of this site has signed"
    )
    max_bytes: int = _ours(
        16 * _MIB, "16 MiB: the largest pickle of a task with its arguments, or of a result, before compression",
        unit="bytes", minimum=1,
    )  # fmt: skip
    max_list_bytes: int = _ours(
        128 * _MIB, "128 MiB: the largest list of an iter's results, including the arguments of its parts",
        unit="bytes", minimum=1,
    )  # fmt: skip
    metrics_port: int = _ours(
        0, "the port on which the cluster answers Prometheus; 0 for none", unit="port", minimum=0, maximum=65535
    )
    metrics_address: str = _ours("127.0.0.1", 'the address of that port; `"0.0.0.0"` for all addresses of the machine')
    metrics_labels: int = _ours(
        100, "how many tenants, and how many functions, have their own series; the rest is `other`",
        unit="names", minimum=1,
    )  # fmt: skip
    isolation: str = _ours(
        "path",
        "what keeps a task in its tenant's schema: the search path, the tenant's role in the shared session, or a "
        "session that the tenant's own role opened",
        shown='`"path"`', rule=rules.ISOLATION,
    )  # fmt: skip
    role_key: str | None = _ours(
        None, "the secret from which the passwords of the tenants' roles are made; take it from the environment",
        rule=rules.ROLE_KEY, is_secret=True,
    )  # fmt: skip
    credentials: str | None = _ours(
        None, "instead of `role_key`: a function that takes a database, a role and a version, and returns a password",
        unit="path",
    )  # fmt: skip
    admin_database: str | None = _ours(
        None,
        "a URL of the tenants' database for a role that may create roles, from the environment; or the path of a "
        "function that returns the URL",
        unit="URL or path",
        is_secret=True,
    )
    tenant_sessions: int = _ours(
        4, "the most sessions of tenants' roles that a worker keeps open, that of the tenant it serves included",
        unit="sessions", minimum=1,
    )  # fmt: skip
    open_aliases: tuple[str, ...] = _ours(
        (), "the aliases of databases that tasks may use with the project's own role, besides `databases`",
        unit="aliases", item_problem=rules.alias_problem,
    )  # fmt: skip
    shared_read: tuple[str, ...] = _ours(
        (), "the models or tables of the public schema that tenants' roles may read", unit="models",
        item_problem=rules.table_problem,
    )  # fmt: skip
    shared_write: tuple[str, ...] = _ours(
        (), "the models or tables of the public schema that tenants' roles may read and write", unit="models",
        item_problem=rules.table_problem,
    )  # fmt: skip
    make_tenant: str | None = _ours(
        None,
        "a function that takes a schema, fields and a domain, and creates the rows of a new tenant; without it the "
        "tenant model and the domain model are used",
        unit="path",
    )
    test_queue: bool = _ours(
        False, "whether to serve and fill the test queue of the configured database, whose tests run elsewhere"
    )

    q_cluster: Mapping[str, Any] = field(default_factory=dict)
    excluded_schemas: frozenset[str] = frozenset({"public"})

    @property
    def zone(self) -> ZoneInfo | None:
        """The setting for the time zone of schedules; None with `USE_TZ = False`."""
        return ZoneInfo(self.time_zone) if self.time_zone else None


def _other(key: str, *types: type, help: str = "", **facts: Any) -> Setting:
    return Setting(place="Q_CLUSTER", key=key, types=types, help=help, **facts)


_AS_BROKER_CLASS = "as `broker_class`"

OTHERS = (
    _other(
        "ALT_CLUSTERS", dict,
        help="settings of further clusters by their names; chosen by `mscluster --name`, or by `Q_CLUSTER_NAME` in the "
        "environment",
        differs="a name that is not listed is a cluster with the same settings",
    ),
    _other("redis", dict, str, default="local server", help="Redis or Valkey: a URL, or the keywords of `redis.Redis`"),
    _other("django_redis", str, help="instead of `redis`: an alias of `CACHES` with `django-redis`"),
    _other(
        "broker_class", str, help="the path of another broker of Django-Q2",
        differs="such a broker keeps its own guarantees; leases, fairness and policies need Redis",
    ),
    _other("sqs", dict, help="Amazon SQS as the broker", differs=_AS_BROKER_CLASS),
    _other("iron_mq", dict, help="IronMQ as the broker", differs=_AS_BROKER_CLASS),
    _other("mongo", dict, help="MongoDB as the broker", differs=_AS_BROKER_CLASS),
    _other("mongo_db", str, help="the database of that broker"),
    _other(
        "bulk", int, default="`1`", unit="tasks", minimum=1, help="how many tasks such a broker hands out at once",
        differs="Redis does not need it",
    ),
    _other("orm", str, help="refused (`tenant_q.E005`)", differs="the one table of that broker is not per tenant"),
    _other("compress", bool, default="`False`", help="whether packages are compressed"),
    _other(
        "error_reporter", dict, is_secret=True, help="error reporters, which get each error of a failed task"
    ),
    _other("label", str, default='`"Django Q"`', help="the title of Django-Q2's part of the admin"),
    _other(
        "retry", int, help="SQS, IronMQ and MongoDB redeliver a task after this time (60 seconds by default)",
        no_effect="leases are renewed while their worker lives, so nothing is redelivered by the clock",
    ),
    _other("queue_limit", int, no_effect="workers take small batches directly from the broker"),
    _other("guard_cycle", int, float, no_effect="the sentinel waits for its processes and does not poll"),
    _other("daemonize_workers", bool, no_effect="tasks may always start child processes"),
    _other("poll", int, float, no_effect="it belongs to the ORM broker, which cannot be used here"),
    _other("has_replica", bool, no_effect="it belongs to the ORM broker, which cannot be used here"),
    _other("testing", bool, no_effect="it is a switch for Django-Q2's own tests"),
)  # fmt: skip


def _described() -> dict[str, Setting]:
    hints = get_type_hints(Configuration)
    found = {each.name: each.metadata["setting"] for each in fields(Configuration) if "setting" in each.metadata}
    return {
        name: replace(setting, key=setting.key or name, types=written_types(hints[name]))
        for name, setting in found.items()
    }


# The settings behind the attributes of `Configuration`, by attribute.
ATTRIBUTES: Mapping[str, Setting] = _described()
Q_CLUSTER: Mapping[str, Setting] = {
    each.key: each for each in (*ATTRIBUTES.values(), *OTHERS) if each.place == "Q_CLUSTER"
}
TENANT_Q: Mapping[str, Setting] = {each.key: each for each in ATTRIBUTES.values() if each.place == "TENANT_Q"}

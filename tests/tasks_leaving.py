"""Tasks that leave something in their connection or their process, and one that looks what it finds of it.

Each changes what another tenant's task would see, read or be hurt by, without a statement that the server remembers.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import locale
import logging
import os
import signal
import socket
import sys
import threading
import time
import warnings
from typing import Any

import psycopg
from django.conf import settings
from django.core.signals import request_started, setting_changed
from django.db import connection, connections
from psycopg.adapt import Dumper, Loader
from psycopg.rows import dict_row

STOLEN: list[Any] = []


class _StealingLoader(Loader):
    def load(self, data: Any) -> str:
        STOLEN.append(bytes(data))
        return "stolen"


class _StealingDumper(Dumper):
    def dump(self, value: Any) -> bytes:
        STOLEN.append(value)
        return b"stolen"


def _raw() -> Any:
    connection.ensure_connection()
    return connection.connection


# A connection of the driver's


def register_a_loader() -> None:
    _raw().adapters.register_loader("text", _StealingLoader)


def register_a_dumper() -> None:
    _raw().adapters.register_dumper(str, _StealingDumper)


def register_a_loader_and_make_a_cursor() -> None:
    """A cursor shares the tables of its connection, and resets how their owner is known."""
    register_a_loader()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


def register_a_loader_on_a_new_connection() -> None:
    connection.close()
    register_a_loader()


def register_a_type() -> None:
    psycopg.types.TypeInfo("made_up", 25, 1009).register(_raw())


def handle_notices() -> None:
    _raw().add_notice_handler(STOLEN.append)


def handle_notifies() -> None:
    _raw().add_notify_handler(STOLEN.append)


def handle_notices_of_the_library() -> None:
    _raw().pgconn.notice_handler = STOLEN.append


def replace_a_method() -> None:
    raw = _raw()
    execute = raw.execute
    raw.execute = lambda query, *args, **kwargs: (STOLEN.append(query), execute(query, *args, **kwargs))[1]


def make_cursors_return_dicts() -> None:
    raw = _raw()
    make = raw.cursor
    raw.cursor = lambda *args, **kwargs: make(*args, **{**kwargs, "row_factory": dict_row})


# Django's connection


def replace_djangos_cursor() -> None:
    make = connections["default"].cursor

    def cursor() -> Any:
        STOLEN.append("cursor")
        return make()

    connections["default"].cursor = cursor


def force_debug() -> None:
    connection.force_debug_cursor = True
    with connection.cursor() as cursor:
        cursor.execute("SELECT 'a secret'")


def replace_the_settings() -> None:
    connections["default"].settings_dict = {**connection.settings_dict, "NAME": "postgres"}
    connection.close()


def change_the_database() -> None:
    connection.settings_dict["NAME"] = "postgres"
    connection.close()


def change_the_database_for_a_while() -> None:
    own = connection.settings_dict["NAME"]
    connection.settings_dict["NAME"] = "postgres"
    connection.close()
    connection.ensure_connection()
    connection.settings_dict["NAME"] = own


def change_an_option() -> None:
    connection.settings_dict.setdefault("OPTIONS", {})["options"] = "-c statement_timeout=777"
    connection.close()


def change_another_databases_option() -> None:
    connections.settings["replica"].setdefault("OPTIONS", {})["options"] = "-c statement_timeout=777"


def replace_the_connection() -> None:
    other = connections.create_connection("default")
    other.set_schema("initech_llc")
    other.cursor = lambda: STOLEN.append("cursor")
    connections["default"] = other


def replace_the_connections_time_zone() -> None:
    import zoneinfo

    vars(connections["default"])["timezone"] = zoneinfo.ZoneInfo("Asia/Tokyo")
    vars(connections["default"])["timezone_name"] = "Asia/Tokyo"


CONNECTION = (
    register_a_loader,
    register_a_dumper,
    register_a_loader_and_make_a_cursor,
    register_a_loader_on_a_new_connection,
    register_a_type,
    handle_notices,
    handle_notifies,
    handle_notices_of_the_library,
    replace_a_method,
    make_cursors_return_dicts,
    replace_djangos_cursor,
    force_debug,
    replace_the_settings,
    change_the_database,
    change_the_database_for_a_while,
    change_an_option,
    change_another_databases_option,
    replace_the_connection,
    replace_the_connections_time_zone,
)


def look_at_the_connection() -> dict[str, Any]:
    """What a task sees of how its connection is set up."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 'text'::text, %s::varchar, current_database(), current_schema(), "
            "current_setting('statement_timeout'), current_setting('TimeZone')",
            ["mine"],
        )
        row = cursor.fetchone()
        cursor.execute("DO $$ BEGIN RAISE NOTICE 'a secret'; END $$")
        cursor.execute("LISTEN to_myself")
        cursor.execute("NOTIFY to_myself, 'a secret'")
        cursor.execute("UNLISTEN *")
    raw = connection.connection
    plain = raw.execute("SELECT 1").fetchone()
    with connections["replica"].cursor() as cursor:
        cursor.execute("SELECT current_setting('statement_timeout')")
        limit = cursor.fetchone()
    found = {
        "row": list(row),
        "plain": plain,
        "replica": limit,
        "stolen": [str(one) for one in STOLEN],
        "queries": len(connection.queries_log),
        "debug": connection.force_debug_cursor,
        "made_up": raw.adapters.types.get("made_up") is None,
        "zone": str(connection.timezone),
    }
    connections["replica"].close()
    return found


# The process


def limit_memory() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, resource.getrlimit(resource.RLIMIT_AS)[1]))


def limit_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (300, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


def profile_timer() -> None:
    signal.setitimer(signal.ITIMER_PROF, 1000)


def virtual_timer() -> None:
    signal.setitimer(signal.ITIMER_VIRTUAL, 1000)


def ignore_children() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def handle_hangup() -> None:
    signal.signal(signal.SIGHUP, lambda *_: STOLEN.append("hangup"))


def block_hangup() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def change_the_environment() -> None:
    os.environ["ACME_SECRET"] = "theirs"
    os.environ.pop("HOME", None)


def replace_the_environment() -> None:
    os.environ = dict(os.environ)  # type: ignore[assignment]  # noqa: B003


def change_the_c_time_zone() -> None:
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()


def change_directory() -> None:
    os.chdir("/")


def delete_the_directory() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as path:
        os.chdir(path)


def change_the_umask() -> None:
    os.umask(0o777)


def change_the_socket_timeout() -> None:
    socket.setdefaulttimeout(0.001)


def add_a_warning_filter() -> None:
    warnings.simplefilter("error")


def show_warnings_otherwise() -> None:
    warnings.showwarning = lambda *args, **kwargs: STOLEN.append(args)


def disable_logging() -> None:
    logging.disable(logging.CRITICAL)


class _StealingHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        STOLEN.append(record.getMessage())


def listen_to_a_logger() -> None:
    handler = _StealingHandler()
    logging.getLogger("billing").addHandler(handler)
    STOLEN_HANDLERS.append(handler)


def silence_a_logger() -> None:
    logging.getLogger("billing").setLevel(logging.CRITICAL)


def filter_the_root_logger() -> None:
    logging.getLogger().addFilter(lambda record: False)


STOLEN_HANDLERS: list[Any] = []


def change_a_setting() -> None:
    settings.DEFAULT_FROM_EMAIL = "acme@example.com"


def change_a_setting_and_read_it() -> None:
    settings.DEFAULT_FROM_EMAIL = "acme@example.com"
    assert settings.DEFAULT_FROM_EMAIL == "acme@example.com"


def add_a_setting() -> None:
    settings.OF_ACME = "theirs"


def delete_a_setting() -> None:
    del settings.DEFAULT_FROM_EMAIL


def override_settings() -> None:
    from django.test.utils import override_settings

    override_settings(DEFAULT_FROM_EMAIL="acme@example.com").enable()


def _receive(**_: Any) -> None:
    STOLEN.append("received")


def connect_a_receiver() -> None:
    request_started.connect(_receive)


def connect_a_receiver_to_a_model() -> None:
    from django.db.models.signals import post_init

    post_init.connect(_receive)


def disconnect_all_receivers() -> None:
    setting_changed.receivers = []


def replace_a_receiver() -> None:
    setting_changed.receivers = setting_changed.receivers[1:]
    setting_changed.connect(_receive)


def add_a_path() -> None:
    sys.path.insert(0, "/tmp/of_acme")


def add_an_importer() -> None:
    sys.meta_path.insert(0, _Importer())


class _Importer:
    def find_spec(self, *args: Any) -> None:
        STOLEN.append(args[0])


def redirect_stdout() -> None:
    import io

    sys.stdout = io.StringIO()


def hook_exceptions() -> None:
    sys.excepthook = lambda *args: STOLEN.append(args)
    threading.excepthook = lambda *args: STOLEN.append(args)


def trace_calls() -> None:
    sys.settrace(lambda *args: None)


def profile_calls() -> None:
    sys.setprofile(lambda *args: None)


def profile_new_threads() -> None:
    threading.setprofile(lambda *args: None)


def collect_no_garbage() -> None:
    gc.disable()


def collect_seldom() -> None:
    gc.set_threshold(1, 1, 1)


def limit_recursion() -> None:
    sys.setrecursionlimit(5000)


def switch_seldom() -> None:
    sys.setswitchinterval(10)


def limit_digits() -> None:
    sys.set_int_max_str_digits(1000)


def take_the_wakeup_fd() -> None:
    signal.set_wakeup_fd(-1)


PROCESS = (
    limit_memory,
    limit_files,
    profile_timer,
    virtual_timer,
    ignore_children,
    handle_hangup,
    block_hangup,
    change_the_environment,
    replace_the_environment,
    change_the_c_time_zone,
    change_directory,
    delete_the_directory,
    change_the_umask,
    change_the_socket_timeout,
    add_a_warning_filter,
    show_warnings_otherwise,
    disable_logging,
    listen_to_a_logger,
    silence_a_logger,
    filter_the_root_logger,
    change_a_setting,
    change_a_setting_and_read_it,
    add_a_setting,
    delete_a_setting,
    override_settings,
    connect_a_receiver,
    connect_a_receiver_to_a_model,
    disconnect_all_receivers,
    replace_a_receiver,
    add_a_path,
    add_an_importer,
    redirect_stdout,
    hook_exceptions,
    trace_calls,
    profile_calls,
    profile_new_threads,
    collect_no_garbage,
    collect_seldom,
    limit_recursion,
    switch_seldom,
    limit_digits,
)


HITS_ANY_TASK = (limit_memory, limit_files, profile_timer, virtual_timer, block_hangup)


def limit_core_files() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (4096, resource.getrlimit(resource.RLIMIT_CORE)[1]))


def handle_a_real_time_signal() -> None:
    signal.signal(signal.SIGRTMIN + 3, lambda *_: STOLEN.append("real time"))


def change_the_locale() -> None:
    locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C")


def change_the_loop_policy() -> None:
    asyncio.set_event_loop_policy(_Policy())


class _Policy(asyncio.DefaultEventLoopPolicy):
    pass


def register_a_loader_for_all() -> None:
    psycopg.adapters.register_loader("text", _StealingLoader)


BATCH = (
    limit_core_files,
    handle_a_real_time_signal,
    change_the_locale,
    change_the_loop_policy,
    register_a_loader_for_all,
)


def look_at_the_process() -> dict[str, Any]:
    """What a task sees of its process. Values are as they print."""
    import resource

    umask = os.umask(0)
    os.umask(umask)
    logging.getLogger("billing").warning("a secret")
    request_started.send(sender=None)
    found = {
        "limits": [resource.getrlimit(number) for number in range(16)],
        "timers": [signal.getitimer(signal.ITIMER_PROF)[0], signal.getitimer(signal.ITIMER_VIRTUAL)[0]],
        "handlers": {n: signal.getsignal(n) for n in signal.valid_signals() if n != signal.SIGALRM},
        "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        "environment": sorted(os.environ.items()),
        "environ": type(os.environ),
        "zone": time.tzname,
        "directory": os.getcwd(),  # noqa: PTH109
        "umask": umask,
        "timeout": socket.getdefaulttimeout(),
        "filters": warnings.filters,
        "showwarning": warnings.showwarning,
        "disabled": logging.root.manager.disable,
        "billing": (logging.getLogger("billing").level, logging.getLogger("billing").handlers),
        "root": (logging.root.level, logging.root.handlers, logging.root.filters),
        "setting": getattr(settings, "DEFAULT_FROM_EMAIL", None),
        "added": hasattr(settings, "OF_ACME"),
        "receivers": [signal_.receivers for signal_ in (setting_changed, request_started)],
        "path": sys.path,
        "importers": sys.meta_path,
        "stdout": sys.stdout,
        "hooks": (sys.excepthook, threading.excepthook),
        "traced": (sys.gettrace(), sys.getprofile(), threading._profile_hook),
        "garbage": (gc.isenabled(), gc.get_threshold()),
        "recursion": sys.getrecursionlimit(),
        "switch": sys.getswitchinterval(),
        "digits": sys.get_int_max_str_digits(),
        "locale": locale.setlocale(locale.LC_ALL),
        "policy": type(asyncio.get_event_loop_policy()),
        "loader": psycopg.adapters.get_loader(25, psycopg.pq.Format.TEXT),
        "stolen": STOLEN,
    }
    return {name: repr(value) for name, value in found.items()}


def give_up_a_right() -> int:
    """What cannot be taken back: as root its group, else a limit."""
    import resource

    if os.geteuid() == 0:
        os.setresgid(65534, 65534, 65534)
    else:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0 if hard != 0 else hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
    return os.getpid()


def import_a_module(name: str) -> None:
    importlib.import_module(name)


def change_everything(task: Any = None) -> None:
    for change in (limit_files, handle_hangup, change_the_environment, change_directory, change_the_umask):
        change()
    connect_a_receiver()
    change_a_setting()
    disable_logging()

"""Every record of tenant_q names its tenant, task and function."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import tenant_q
from tenant_q.logging import TenantFilter
from tenant_q.management.commands import mscluster
from tenant_q.support.log_labels import LONGEST_TRACEBACK, get_logger


def test_what_is_not_known_is_a_dash(caplog):
    get_logger("tenant_q.test").warning("about %s", "a", extra={"schema": "acme", "task_id": "", "more": 1})
    (record,) = caplog.records
    assert (record.schema, record.task_id, record.func, record.more) == ("acme", "-", "-", 1)


def test_an_event_is_an_attribute_and_no_other_record_has_it(caplog):
    get_logger("tenant_q.test").warning("about %s", "a", event="task.failed")
    get_logger("tenant_q.test").warning("about %s", "b")
    logging.getLogger("billing").warning("about nothing")
    for record in caplog.records:
        TenantFilter().filter(record)
    assert [record.event for record in caplog.records] == ["task.failed", "-", "-"]
    assert [record.getMessage() for record in caplog.records] == ["about a", "about b", "about nothing"]


def test_no_module_logs_past_the_labels():
    """Only the command looks at the logger itself: whether the project has given it a handler."""
    modules = Path(tenant_q.__file__).parent.rglob("*.py")
    found = {path.name for path in modules if "logging.getLogger(" in path.read_text()}
    assert found == {"log_labels.py", "mscluster.py", "watched_logging.py"}


def test_the_console_of_a_cluster_shows_the_tenant(monkeypatch, capsys):
    root = logging.getLogger("tenant_q")
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "propagate", False)
    monkeypatch.setattr(root, "level", root.level)
    mscluster._log_to_console()
    get_logger("tenant_q.test").error("about %s", "a", extra={"schema": "acme"})
    get_logger("tenant_q.test").error("about all")
    logging.getLogger("tenant_q.test").error("unlabelled")
    lines = [line.split(",", 1)[1][4:] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["ERROR    [acme] about a", "ERROR    [-] about all", "ERROR    [-] unlabelled"]


def test_a_traceback_is_limited(caplog):
    try:
        raise ValueError("x" * 200_000)
    except ValueError:
        get_logger("tenant_q.test").exception("failed")
    (record,) = caplog.records
    assert len(record.exc_text) < LONGEST_TRACEBACK + 100
    assert "characters are left out" in record.exc_text


def test_labels_are_not_shared_between_records(caplog):
    logger = get_logger("tenant_q.test")
    logger.warning("one", extra={"func": "f"})
    logger.warning("two")
    assert [record.func for record in caplog.records] == ["f", "-"]
    assert isinstance(logger.logger, logging.Logger)


def test_the_filter_may_stand_in_logging():
    """Django reads `LOGGING` before the apps are loaded, and a record may come before they are."""
    settings = """
import logging
import subprocess
import sys
from django.conf import settings

FILTER = {"()": "tenant_q.logging.TenantFilter"}
HANDLER = {"class": "logging.StreamHandler", "filters": ["tenant"], "formatter": "line"}
settings.configure(LOGGING={
    "version": 1,
    "filters": {"tenant": FILTER},
    "formatters": {"line": {"format": "{schema} {task_id} {func} {event} {message}", "style": "{"}},
    "handlers": {"console": HANDLER},
    "root": {"handlers": ["console"]},
})
import django
from django.utils.log import configure_logging

configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
logging.warning("early")
"""
    done = subprocess.run([sys.executable, "-c", settings], capture_output=True, text=True)
    assert done.stderr == "- - - - early\n"

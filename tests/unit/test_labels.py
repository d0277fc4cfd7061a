"""Every record of tenant_q names its tenant, task and function."""

from __future__ import annotations

import logging
from pathlib import Path

import tenant_q
from tenant_q.labels import get_logger


def test_what_is_not_known_is_a_dash(caplog):
    get_logger("tenant_q.test").warning("about %s", "a", extra={"schema": "acme", "task_id": "", "more": 1})
    (record,) = caplog.records
    assert (record.schema, record.task_id, record.func, record.more) == ("acme", "-", "-", 1)


def test_no_module_logs_past_the_labels():
    """Only the command looks at the logger itself: whether the project has given it a handler."""
    modules = Path(tenant_q.__file__).parent.rglob("*.py")
    found = {path.name for path in modules if "logging.getLogger(" in path.read_text()}
    assert found == {"labels.py", "mscluster.py"}


def test_labels_are_not_shared_between_records(caplog):
    logger = get_logger("tenant_q.test")
    logger.warning("one", extra={"func": "f"})
    logger.warning("two")
    assert [record.func for record in caplog.records] == ["f", "-"]
    assert isinstance(logger.logger, logging.Logger)

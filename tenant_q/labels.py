"""The loggers of tenant_q: every record says which tenant, which task and which function it is about."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

# What a record says where there is no tenant, no task or no function to name.
NOTHING = "-"
NAMES = ("schema", "task_id", "func")


class LabelledLogger(logging.LoggerAdapter[logging.Logger]):
    """A logger whose records carry `schema`, `task_id` and `func`, as "-" where the call's `extra` has them not."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        given = kwargs.get("extra") or {}
        kwargs["extra"] = {**given, **{name: given.get(name) or NOTHING for name in NAMES}}
        return msg, kwargs


def get_logger(name: str) -> LabelledLogger:
    """The logger `name`, with the labels."""
    return LabelledLogger(logging.getLogger(name), {})

"""Check the values that a run keeps, inputs, outputs and what steps set: they must be JSON that `jsonb` holds."""

from __future__ import annotations

import json
from typing import Any

from tenant_q.exceptions import ValueRefused
from tenant_q.support.json_values import json_problem

MOST_BYTES = 1024 * 1024
"""The largest value of a step or of an input, in bytes of its JSON."""


def json_of(value: Any) -> str:
    """Return the JSON text of a value that a run is to keep.

    Args:
        value: Dicts with texts as keys, lists, tuples, texts, numbers, True, False and None.

    Raises:
        ValueRefused: JSON or `jsonb` cannot hold a part of it, or it is too large. The message has the part's path.
    """
    if problem := json_problem(value):
        raise ValueRefused(problem)
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    if len(text) > MOST_BYTES or len(text.encode()) > MOST_BYTES:
        raise ValueRefused(
            f"the value at $ takes {len(text.encode())} bytes as JSON, and at most {MOST_BYTES} are kept; keep it "
            "elsewhere and return its key."
        )
    return text

"""Which handler a signal has, asked and set several times a task.

The functions of `signal` make enums of what they take and give, by raising and catching errors: for a short task that
is more than its call. These are the ones beneath.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
from collections.abc import Callable
from typing import Any

# What a signal does that nobody handles.
DEFAULT: int = _signal.SIG_DFL

get_handler: Callable[[int], Any] = _signal.getsignal
set_handler: Callable[[int, Any], Any] = _signal.signal

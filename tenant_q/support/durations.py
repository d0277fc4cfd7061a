"""Show durations to people."""

from __future__ import annotations


def duration(seconds: float | None) -> str:
    """Show a duration with two significant figures: 4 ms, 1.2 s, 12 s, 3 min, 2.5 h, 4 d; "-" for None."""
    if seconds is None:
        return "-"
    if seconds < 0.9995:
        return f"{max(0.0, 1000 * seconds):.0f} ms"  # a clock that was set back gives less than nothing
    for unit, size, most in (("s", 1, 99.5), ("min", 60, 99.5), ("h", 3600, 47.5), ("d", 86400, float("inf"))):
        count = seconds / size
        if count < most:
            return f"{count:.1f} {unit}" if count < 9.95 else f"{count:.0f} {unit}"
    raise AssertionError("the last unit takes everything")

"""A module that nobody offers: whoever imports it leaves a note."""

from tests.tasks import note

note("imported-trap")


def nothing() -> None:
    return None

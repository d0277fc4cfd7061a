"""Write a number with its noun, in English: texts of the log and of commands are not translated."""

from __future__ import annotations


def counted(number: int, noun: str, many: str = "") -> str:
    """Return a number with its noun in singular or plural, such as "1 task" and "1,000 tasks".

    Args:
        number: The number.
        noun: The noun in the singular.
        many: Its plural, if that is not the singular with an "s".
    """
    return f"{number:,} {noun if number == 1 else many or noun + 's'}"

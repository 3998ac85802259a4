"""Checks of arguments that several functions share, with their messages."""

from __future__ import annotations

import operator
from typing import SupportsIndex


def whole_number(name: str, value: SupportsIndex, least: int, fix: str) -> int:
    """Return `value` as an int of `least` or more.

    Args:
        name: The argument's name, for the message.
        value: What the caller gave.
        least: The lowest value that is accepted.
        fix: What to do instead, for the message.

    Raises:
        TypeError: `value` is not an int, or is a bool.
        ValueError: `value` is below `least`.
    """
    if isinstance(value, bool):
        raise TypeError(f"{name} is {value}, a bool; {fix}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is a {type(value).__name__}, not an int; {fix}") from None
    if number < least:
        raise ValueError(f"{name} is {number}; {fix}")
    return number

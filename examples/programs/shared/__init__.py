"""What the programs share. Each file in the folder above is a program; these are none.

Python finds this package because it is in the folder of the script that is run.
"""

from __future__ import annotations

from .ending import OneLineErrors
from .event_loops import add_backend_option, run_on
from .reporting import (
    Look,
    Rate,
    announce,
    escape_what_cannot_be_printed,
    left,
    losses,
    print_at_intervals,
    show_at_intervals,
)
from .stopping import stop_on_signal

__all__ = [
    "Look",
    "OneLineErrors",
    "Rate",
    "add_backend_option",
    "announce",
    "escape_what_cannot_be_printed",
    "left",
    "losses",
    "print_at_intervals",
    "run_on",
    "show_at_intervals",
    "stop_on_signal",
]

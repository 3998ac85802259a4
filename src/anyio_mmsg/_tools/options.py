"""What the commands have in common on the command line: numbers, and how help is laid out."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable


def parser_of(command: str, text: str | None) -> argparse.ArgumentParser:
    """Return the parser of a command, whose help begins with the text, as it is written."""
    return argparse.ArgumentParser(
        prog=f"python -m anyio_mmsg {command}",
        description=text,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def whole(least: int, most: int) -> Callable[[str], int]:
    """Return what reads a whole number between these two, for argparse."""

    def number(text: str) -> int:
        if not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text} is not {least} to {most}")
        return int(text)

    return number


port = whole(0, 65535)
count = whole(1, sys.maxsize)


def amount(text: str) -> float:
    """Read a finite number above 0, such as seconds, for argparse."""
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0, and finite")
    return float(text)


def add_json_option(parser: argparse.ArgumentParser, what: str) -> None:
    """Let the command line ask for JSON; `what` says what a document is."""
    parser.add_argument("--json", action="store_true", help=f"print JSON: {what}")

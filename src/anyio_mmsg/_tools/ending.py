"""How a command ends: what its user can do something about is one line, and an exit status."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator

TROUBLE = 2  # the exit status; argparse has the same one for a wrong command line
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class CommandError(Exception):
    """What keeps a command from its work, as a line that says what to do."""


def need(package: str, what_for: str, to_install: str) -> None:
    """Import a package.

    Raises:
        CommandError: It is not installed.
    """
    try:
        importlib.import_module(package)
    except ModuleNotFoundError:
        raise CommandError(
            f"{what_for} needs the package {package}: python -m pip install {to_install}"
        ) from None


@contextlib.contextmanager
def wrong_arguments() -> Iterator[None]:
    """Take a ValueError in the block as the user's, who gave what the library refuses."""
    try:
        yield
    except ValueError as error:
        raise CommandError(str(error)) from error


def ending(name: str, work: Callable[[], int]) -> int:
    """Run a command and return its exit status, after a line on stderr if it could not work.

    Warnings are one line each, too. Mistakes of the program itself are raised.
    """

    def say(text: object) -> None:
        with contextlib.suppress(OSError):  # nobody reads that either
            print(f"{name}: {text}", file=sys.stderr, flush=True)

    # Commands show what receivers count; a line more would break a live table.
    logging.getLogger("anyio_mmsg.receiver").addHandler(logging.NullHandler())
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *_: say(message)
        try:
            status = work()
            sys.stdout.flush()
        except BaseException as error:
            causes = list(causes_of(error))
            if all(isinstance(cause, KeyboardInterrupt) for cause in causes):
                status = INTERRUPTED
            elif all(isinstance(cause, (OSError, CommandError)) for cause in causes):
                say("; ".join(dict.fromkeys(map(text_of, causes))))
                status = TROUBLE
            else:
                raise
            give_up_output()
    return status


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Give the error, or what a group consists of."""
    inner: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    if inner is None:
        yield error
    for one in inner or ():
        yield from causes_of(one)


def text_of(error: BaseException) -> str:
    """Return an error as its user has to see it."""
    if isinstance(error, BrokenPipeError):
        return "nobody reads the output any more"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error) or type(error).__name__


def give_up_output() -> None:
    """Write what is still in the buffer, or if that fails, have the interpreter not try again."""
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

"""How the programs end: what a user can do something about is one line on stderr, and status 2."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

TROUBLE = 2  # the exit status; argparse has the same one for a wrong command line
INTERRUPTED = 130  # 128 + SIGINT, as shells report it
PACKAGES = {"dns": "dnspython", "nats": "nats-py"}  # whose modules have other names


class OneLineErrors:
    """Ends the program with a line instead of a traceback, if the block fails in a usual way.

    That is: the system refuses something (a port in use, an unknown host, no permission, a full
    disk), nobody reads the output any more, as with ``| head -1``, a package is not installed, or
    Ctrl-C. Mistakes of the program itself still show where they are.
    """

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        causes = [] if error is None else list(causes_of(error))
        if not causes or all(isinstance(cause, SystemExit) for cause in causes):
            try:  # here, where it can be said that it fails
                sys.stdout.flush()
            except OSError as failed:
                causes = [failed]
            else:
                return
        if all(isinstance(cause, KeyboardInterrupt) for cause in causes):
            give_up_output()
            raise SystemExit(INTERRUPTED) from None
        if all(isinstance(cause, (OSError, ModuleNotFoundError)) for cause in causes):
            lines = "; ".join(dict.fromkeys(map(line_of, causes)))
            with contextlib.suppress(OSError):  # nobody reads that either
                print(f"{Path(sys.argv[0]).name}: {lines}", file=sys.stderr, flush=True)
            give_up_output()
            raise SystemExit(TROUBLE) from None


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Give the error, or what a group of errors consists of."""
    inner: tuple[BaseException, ...] | None = getattr(error, "exceptions", None)
    if inner is None:
        yield error
    for one in inner or ():
        yield from causes_of(one)


def line_of(error: BaseException) -> str:
    """Return an error as its user has to see it."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        module = error.name.partition(".")[0]
        package = PACKAGES.get(module, module)
        return f"it needs the package {package}: python -m pip install {package}"
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

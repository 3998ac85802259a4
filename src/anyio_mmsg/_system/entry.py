"""Public functions whose usual calls are one step in C."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any, TypeVar, cast

from .platform import Entry

_F = TypeVar("_F", bound=Callable[..., Any])


def by_one_step(step: Callable[..., Any] | None) -> Callable[[_F], _F]:
    """Give a function a shortcut for its usual calls: `step`, in C. With None it gets none.

    `step` gets the arguments as they are. It returns NotImplemented if the call is not usual; then
    nothing has happened, and the function is called. So that one is the reference: it does every
    call. To whoever asks for its signature, docstring or source, or pickles it, what this returns
    is the function.
    """

    def decorate(function: _F) -> _F:
        if step is None or Entry is None:
            return function
        return cast(_F, update_wrapper(Entry(function, step), function))

    return decorate

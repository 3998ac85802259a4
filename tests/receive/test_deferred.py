"""An error that waits for the next receive keeps nothing alive."""

from __future__ import annotations

import gc
import socket
import weakref

from anyio_mmsg._receive.outlook import outlook_for


def met_by(sock: socket.socket) -> OSError:
    """An error whose traceback has `sock`, and so has that of what was being handled meanwhile."""
    try:
        raise ValueError(f"not about {sock}")
    except ValueError:
        try:
            raise OSError(5, "an error of the socket")
        except OSError as error:
            return error


def test_a_deferred_error_keeps_no_socket() -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    gone = weakref.ref(sock)
    with sock:
        outlook_for(sock).defer_error(sock, met_by(sock))
    del sock
    gc.collect()
    assert gone() is None


def test_it_is_raised_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        error = met_by(sock)
        assert error.__context__ is not None
        outlook_for(sock).defer_error(sock, error)
        assert outlook_for(sock).take_error(sock) is error
        assert outlook_for(sock).take_error(sock) is None

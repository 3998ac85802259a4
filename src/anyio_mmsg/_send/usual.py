"""The usual send by one step, where C has it, and what comes after a send that was cut short."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from typing import Any, NoReturn

from anyio import WouldBlock

from .._packets.batch import PacketBatch
from .._system.error_queue import ASKED
from .._system.platform import Refused, Shortcut
from .engine import Sender, fall_back
from .known import KNOWN, Known, known_of, learn
from .outgoing import Destination, Payload, check_fan, refuse
from .result import NOTHING, UNUSABLE, SendFailure, SendResult, UnusableSocketError, result_of


class Usual:
    """No shortcut for the usual send, in plain Python. The compiled twin is `Shortcut`.

    A usual send is of a list, a tuple or a batch, without options except `gso` and `result`. What
    else there is, is left to the functions, before anything was sent.
    """

    nowait = None
    """Makes the usual calls of `send_mmsg_nowait`, see `by_one_step`; None: nothing does."""

    def usable(self, *arguments: Any) -> bool:
        """Return whether `send` would send, as far as the socket and the options go.

        Args:
            arguments: Those of `send_mmsg`, in order.
        """
        return False

    def send(self, *arguments: Any) -> Any:
        """Send in one step, with all checks: nothing else comes between.

        Args:
            arguments: Those of `send_mmsg`, in order.

        Returns:
            The result, if all packets were handled. The sender, if not; its `code` is what
            `Sender.send` has returned. None: it is not usual, and nothing was sent.

        Raises:
            Exception: As `refuse_usual`.
        """
        return None

    def fan(
        self,
        sock: socket.socket,
        data: Payload,
        addresses: Iterable[Destination],
        result: SendResult | None,
    ) -> Any:
        """Send one payload to many addresses: `send` for the usual `multi_target_send`."""
        return None


def refuse_usual(
    sock: socket.socket, packets: Any, data: Any, result: SendResult | None, error: Exception
) -> NoReturn:
    """Raise `error`, which came from one of `packets` in a usual send, with that one's index.

    Args:
        sock: Where they were to go out.
        packets: What `send_mmsg` was given; or, if there is `data`, addresses.
        data: One payload for all addresses, or None.
        result: What the call was given.
        error: What was wrong.

    Raises:
        UnusableSocketError: The socket was closed meanwhile.
    """
    if sock.fileno() < 0:
        raise UnusableSocketError(errno.EBADF, "the socket is closed", result)
    known = known_of(sock)
    items: Any = packets._slots if isinstance(packets, PacketBatch) else packets
    if data is not None:
        check_fan(known.most, data)
        items = [(b"", address) for address in packets]
    refuse(known.family, known.most, items, error)


def after(
    sock: socket.socket, sender: Sender, code: int, result: SendResult | None, keep: bool
) -> Sender:
    """Deal with what ended a sender's `send`; return the sender to go on with, if there is more.

    Raises:
        UnusableSocketError: The socket is closed.
    """
    if sender.refused:
        old, sender = sender, fall_back(sock, sender)
        old.release()
        code = sender.send(sock, result, keep)
    if code in UNUSABLE:
        known = result_of(sender.progress) if result is None else result
        raise UnusableSocketError(code, os.strerror(code), known)
    return sender


def conclude(
    sock: socket.socket, sender: Sender, code: int, result: SendResult | None
) -> SendResult:
    """Return what a send gives that does not wait, after `sender.send` returned a code.

    Raises:
        UnusableSocketError: The socket is closed.
        anyio.WouldBlock: There was room for no packet.
    """
    if code:
        sender = after(sock, sender, code, result, False)
        if not sender.handled:
            raise WouldBlock
    return result_of(sender.progress) if result is None else result


USUAL: Any = Usual()
if Shortcut is not None:
    USUAL = Shortcut(
        SendResult,
        SendFailure,
        socket.socket,
        PacketBatch,
        Known,
        Refused,
        KNOWN,
        ASKED,
        learn,
        refuse_usual,
        conclude,
        NOTHING,
    )

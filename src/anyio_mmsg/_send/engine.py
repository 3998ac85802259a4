"""What every sender promises, and which one a send gets."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any, Literal, Protocol, cast, get_args

from .._packets.batch import PacketBatch
from .._system.addresses import ADDRESSES
from .._system.control import split
from .._system.error_queue import ASKED
from .._system.platform import (
    Refused,
    Sendmmsg,
    give_up,
    why_no_batch_calls,
)
from .ancillary import Controls, pack
from .known import KNOWN, Known, known_of
from .outgoing import (
    GIVE,
    WRONG,
    Columns,
    Destination,
    Packets,
    Payload,
    batch_columns,
    check_fan,
    columns,
    fan_columns,
    listed,
    refuse,
)
from .result import Progress, SendFailure, SendResult
from .sendto import Sendto

SendEngine = Literal["auto", "sendto", "sendmmsg"]

SENDERS = get_args(SendEngine)


class Sender(Protocol):
    """One send: packets, each of which can be sent, and how many were. It does not wait.

    Payloads are pinned from the start, before anything is sent, to `release`: they can neither
    be released nor change their size.

    Every sender gives the same bytes, order and errors.

    Attributes:
        count: How many packets there are.
        handled: How many of them were sent or refused.
        progress: What a `SendResult` reads, also when the send is over.
        refused: Whether the system refuses the sender's call: it did so twice.
    """

    count: int
    refused: bool

    @property
    def handled(self) -> int: ...
    @property
    def progress(self) -> Progress: ...

    def send(self, sock: socket.socket, result: SendResult | None, keep: bool) -> int:
        """Send the packets that were not handled yet, as many as there is room for.

        What the system took is recorded by the same C-level step that gave it, so that no
        interrupt can come between.

        Args:
            sock: A datagram socket; it is not waited for, even if it is a blocking one.
            result: What is to read this sender's progress from now on, or None.
            keep: Whether to go on later. Otherwise the send ends with this call, as by `release`,
                unless the call is refused.

        Returns:
            An errno, or 0 if all packets were handled. EAGAIN means that the buffer is full, and
            EBADF or ENOTSOCK that the socket is closed. With any other, `refused` is true.
        """
        ...

    def release(self) -> None:
        """End the send: let go of the payloads."""
        ...


def check_sender(name: str) -> None:
    """Raise ValueError if `name` is unknown, or if that sender is unavailable here."""
    if name not in SENDERS:
        raise ValueError(f"engine is {name!r}; give one of {SENDERS}")
    if name == "sendmmsg" and Sendmmsg is None:
        raise ValueError(
            f'engine="sendmmsg" {why_no_batch_calls()}; give "auto", which takes the best there is'
        )


def sender_of(
    sock: socket.socket,
    packets: Packets,
    gso: bool,
    name: str,
    controls: Controls | None = None,
) -> Sender:
    """Return a sender for what `send_mmsg` was given, checked.

    Raises:
        TypeError: Something has the wrong type.
        ValueError: A payload is too long or not contiguous, an address of another family, out of
            range or a name, a packet or the batch is released, a packet to answer from its
            destination has none.
    """
    known = known_to_send(sock)
    gso = bool(gso) and known.segmentation
    best: Any = None if name == "sendto" or Refused.sendmmsg else Sendmmsg
    replies = controls is not None and controls.replies
    slots: Any = packets._slots if isinstance(packets, PacketBatch) else None
    items: Any = packets
    if slots is not None:
        by_packet = replies or (not slots.held and best is not None)  # raises if it is closed
        items = slots.hand_out(0) if by_packet else slots
    elif best is None or replies or type(packets) not in (list, tuple):
        # A copy, where it is read more than once: a list may change meanwhile.
        items = packets.copy() if type(packets) is list else listed("packets", packets, GIVE)
    if best is None:
        return _sendto_of(sock, known, items, gso, controls)
    return _sendmmsg_of(sock, known, best, items, gso, controls)


def _sendto_of(
    sock: socket.socket, known: Known, items: Any, gso: bool, controls: Controls | None
) -> Sendto:
    """Return the portable sender of a list of packets, or of slots."""
    family, most = known.family, known.most
    try:
        if type(items) is not list:
            return _plain(known, batch_columns(family, items), gso, controls, ())
        made = columns(family, most, items)
        if made.has_options and controls is None:
            controls = Controls(sock)
        return _plain(known, made, gso, controls, items)
    except WRONG as error:
        refuse(family, most, items, error, controls)


def _sendmmsg_of(
    sock: socket.socket, known: Known, best: Any, items: Any, gso: bool, controls: Controls | None
) -> Sender:
    """Return a `Sendmmsg` for packets, or for slots."""
    family, most = known.family, known.most
    wanted = known.sockaddrs, family, most, gso | known.reports << 1, None
    packed: Any = None
    try:
        if controls is not None:
            packed = tuple(controls.each(items, pack)) if controls.replies else pack(controls.same)
        sender: Sender | None = best(SendFailure, items, *wanted, packed)
        if sender is None:  # some packets have options
            items = list(items)
            controls = controls or Controls(sock)
            packed = tuple(controls.each(items, pack))
            sender = best(SendFailure, items, *wanted, packed)
        return cast(Sender, sender)
    except WRONG as error:
        refuse(family, most, items, error, controls)


def known_to_send(sock: socket.socket) -> Known:
    """Return what is known of a socket; if asked, find out anew whether it reports errors."""
    known = KNOWN.get(id(sock)) or known_of(sock)
    if ASKED and id(sock) in ASKED:
        known.reports = True
    return known


def _plain(
    known: Known, columns: Columns, gso: bool, controls: Controls | None, items: Any
) -> Sendto:
    """Return the sender of columns, with control data for what they were made of."""
    if controls is not None:
        if controls.replies or columns.has_options:
            columns.controls = controls.each(items, tuple)
        else:
            columns.controls = [controls.same] * len(columns.datas)
    return Sendto(known, columns, gso)


def fan_sender_of(
    sock: socket.socket,
    data: Payload,
    addresses: Iterable[Destination],
    name: str,
    controls: Controls | None = None,
) -> Sender:
    """Return a sender for what `multi_target_send` was given, checked.

    Raises:
        TypeError: As for `sender_of`.
        ValueError: As for `sender_of`.
    """
    if isinstance(addresses, (str, bytes)):
        raise TypeError(f"addresses is {addresses!r}; give a list of them")
    known = known_to_send(sock)
    family, most = known.family, known.most
    data = check_fan(most, data)
    items = listed("addresses", addresses, "give a list of them")
    best: Any = None if name == "sendto" or Refused.sendmmsg else Sendmmsg
    try:
        if best is not None:
            packed = () if controls is None else (pack(controls.same),)
            sender: Sender = best(
                SendFailure,
                items,
                known.sockaddrs,
                family,
                most,
                known.reports << 1,
                data,
                *packed,
            )
            return sender
        return _plain(known, fan_columns(family, data, items), False, controls, items)
    except WRONG as error:
        refuse(family, most, [(b"", address) for address in items], error)


def fall_back(sock: socket.socket, sender: Any) -> Sender:
    """Return a `Sendto` for the rest of a `Sendmmsg`, and use no `Sendmmsg` from now on."""
    give_up("sendmmsg")
    datas, sockaddrs = sender.rest()
    columns = Columns(datas, list(map(ADDRESSES.__getitem__, sockaddrs)))
    packed = sender.controls
    if isinstance(packed, bytes):
        columns.controls = [tuple(split(packed))] * len(datas)
    elif packed is not None:
        columns.controls = [tuple(split(one)) for one in packed[sender.handled :]]
    return Sendto(known_of(sock), columns, first=sender.handled, failures=sender.progress.failures)

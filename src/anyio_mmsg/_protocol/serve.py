"""`serve_protocol`: what was written for `loop.create_datagram_endpoint`, by batches."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, SupportsIndex

from anyio import TASK_STATUS_IGNORED, BusyResourceError
from anyio.abc import TaskStatus

from .._arguments import whole_number
from .._compat import asyncio_loop
from .._packets.batch import NUM_RCVMMSGS, ReceiveEngine
from .._receive.usable import ensure_usable
from .._send.engine import SendEngine

if TYPE_CHECKING:
    import asyncio


async def serve_protocol(
    sock: socket.socket,
    protocol: asyncio.DatagramProtocol,
    *,
    limit: SupportsIndex = NUM_RCVMMSGS,
    engine: ReceiveEngine = "auto",
    send_engine: SendEngine = "auto",
    gso: bool = False,
    task_status: TaskStatus[asyncio.DatagramTransport] = TASK_STATUS_IGNORED,
) -> None:
    """Serve an `asyncio.DatagramProtocol` by batches, on asyncio or uvloop.

    Use it in place of `loop.create_datagram_endpoint`, with the protocol as it is::

        sock = await open_udp_socket("127.0.0.1", 9999)
        async with anyio.create_task_group() as tasks:
            transport = await tasks.start(serve_protocol, sock, MyProtocol())

    Without AnyIO's task groups, ``asyncio.create_task(serve_protocol(sock, protocol))`` does it;
    the protocol then gets the transport by its `connection_made`.

    *Receiving.* Each time the socket is readable, up to `limit` datagrams are read by one call,
    then `datagram_received` gets them one by one, as bytes, and the loop goes on with everything
    else: a flood does not keep it. As under asyncio, the protocol is called from the loop, not
    from a task, and `error_received` gets what the system reports when the socket is read, such
    as ConnectionRefusedError on a connected one. A protocol whose class has a method
    ``datagrams_received(datagrams)`` gets a batch by one call instead, as a list of
    ``(bytes, address)``. asyncio's own loops call `datagram_received` alone, so that such a
    protocol hears nothing there: let it have both.

    *The error queue* (Linux). Where errors are queued, whoever asked for that, `error_received`
    gets each as an `IcmpError`, once. A datagram that is too long is both: an error of the
    send, and an entry of the queue that says what would pass. A queue from which the program
    reads transmit timestamps is the program's. While it leaves entries there, the socket is
    looked at after pauses of 20 ms at most, since it reports an error each time.

    *Sending.* `transport.sendto` only notes the datagram, and ``transport.sendto_many(pairs)``
    those of an iterable of ``(data, addr)``. What was sent while a batch was
    received goes out at its end, and what was sent elsewhere at the start of the loop's next
    turn, in order, by one call for up to 256. So `error_received` gets the errors a little later
    than under asyncio, one for each datagram that was refused; the others are sent. An empty
    datagram is sent as such on each Python, as asyncio does from 3.13 on. On a connected socket
    `addr` is None or the peer's, or a ValueError. A host name is looked up by the system, which
    blocks the loop, as it does under asyncio.

    *Flow control.* If more than the high-water mark waits to be sent, it is sent at once. If it
    still waits then, because the socket has no room, `pause_writing` is called, and once the
    buffer is down to the low-water mark, `resume_writing`. `transport.set_write_buffer_limits`
    sets the marks. They and `transport.get_write_buffer_size` count 8 bytes more than each
    datagram has. Before the end of its turn a datagram counts too.

    *The end.* Whatever ends it, `connection_lost` is called, then the socket is closed:

    - ``transport.close()``: what waits is sent, however long that takes; then
      ``connection_lost(None)``, and this function returns. What arrives meanwhile, and the rest
      of a batch in which it was called, is not received. Datagrams that are sent from then on
      are ignored.
    - ``transport.abort()``: likewise, but what the socket has no room for is dropped.
    - A cancellation of this function: what waits is tried once, and dropped if there is no
      room; ``connection_lost(None)``; then the cancellation goes on. All that had been read was
      given to the protocol.
    - An error that leaves nothing to serve, below: `connection_lost` gets it, and this function
      raises it.

    An exception that the protocol raises goes to the loop's exception handler, and serving goes
    on, as under asyncio; uvloop's own transport would close. KeyboardInterrupt and
    SystemExit go through the loop, as they do there. If the program then goes on with its loop,
    so does the transport: what waits is sent, each error is reported, and `close` ends it; at
    most the datagram or the call that was interrupted is lost.

    *Contexts.* All methods of the protocol are called in the `contextvars` context in which this
    was started, whoever sends, closes or resumes.

    *Not supported*: calls from other threads than the loop's; to receive from the socket, or
    to wait for it, by anything else meanwhile; to close it other than by the transport; and
    replies from the address that a datagram was sent to, on a socket at all addresses of a
    machine (see ``reply_from_destination`` of `send_mmsg`). `local_addr`, `reuse_port`,
    `allow_broadcast` and the like of `loop.create_datagram_endpoint` are options of the socket:
    see `open_udp_socket`.

    Args:
        sock: A bound or connected datagram socket, nonblocking, as `open_udp_socket` gives it. It
            belongs to the transport from the call of `connection_made` on.
        protocol: The protocol itself, not a function that makes one.
        limit: The most datagrams to read before the loop goes on, at least 1. With ``gro=True``
            of the socket it counts messages of the kernel.
        engine: How to receive; as for `PacketBatch`.
        send_engine: How to send; as for `send_mmsg`. A single datagram always goes by `sendto`.
        gso: Send runs of datagrams of one size to one address in one piece; as for `send_mmsg`.
        task_status: Is given the transport, an `asyncio.DatagramTransport` and an
            `asyncio.Transport`, as asyncio's own is, after `connection_made`. Its `pause_reading`
            leaves what arrives in the socket's buffer.

    Raises:
        RuntimeError: It runs on Trio; on a loop that can't watch sockets (Windows' default); or
            the socket belongs to another transport. Nothing was called, `sock` is open.
        TypeError: `sock` is not a `socket.socket`, `protocol` is not a datagram protocol, `limit`
            not an int; likewise.
        ValueError: `sock` is blocking, or not a datagram socket; `limit` is below 1; an engine is
            unknown, or unavailable here; likewise.
        anyio.BusyResourceError: `sock` serves another protocol; likewise.
        anyio.ClosedResourceError: `sock` is closed; or it was closed by something else, which
            the next receive or send has met.
        Exception: An address was given to `sendto` that is not one for the socket's family: what
            `socket.sendto` raises, TypeError as a rule; or the system failed otherwise, as by a
            MemoryError.
    """
    loop = asyncio_loop()
    if loop is None:
        raise RuntimeError(
            "serve_protocol needs asyncio or uvloop: a DatagramProtocol and what it calls are "
            "asyncio's. On Trio use PacketReceiver and send_mmsg, or run the program by "
            'anyio.run(main, backend="asyncio")'
        )
    ensure_usable(sock)

    from .making import SERVED, Way, peer_of, transport_for  # so that Trio does without asyncio

    if sock in SERVED:
        raise BusyResourceError("receiving from")
    methods = "datagram_received", "datagrams_received"
    if isinstance(protocol, type) or not any(hasattr(protocol, name) for name in methods):
        raise TypeError(
            f"protocol is {protocol!r}; give an asyncio.DatagramProtocol, not what makes one"
        )
    limit = whole_number("limit", limit, 1, "give the number of datagrams, at least 1")
    done: asyncio.Future[BaseException | None] = loop.create_future()

    def end(error: BaseException | None) -> None:
        if not done.done():  # a cancelled task has cancelled it
            done.set_result(error)

    way = Way(limit, engine, send_engine, gso)
    transport = transport_for(loop, sock, protocol, way, peer_of(sock), end)
    try:
        transport.start_reading()
    except NotImplementedError:
        raise RuntimeError(
            "this event loop can't watch sockets; on Windows run the program by asyncio's "
            "SelectorEventLoop"
        ) from None
    SERVED.add(sock)
    try:
        transport.begin()
        task_status.started(transport)
        error = await done
    finally:
        SERVED.discard(sock)
        transport.finish()
    if error is not None:
        raise error

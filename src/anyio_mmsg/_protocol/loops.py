"""`batched_loop_factory`: event loops whose datagram endpoints work by batches."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, SupportsIndex

from .._arguments import whole_number
from .._packets.batch import NUM_RCVMMSGS, ReceiveEngine, new_slots
from .._receive.engine import check_engine
from .._send.engine import SendEngine, check_sender

if TYPE_CHECKING:
    import asyncio


def batched_loop_factory(
    base: type[asyncio.AbstractEventLoop] | None = None,
    *,
    limit: SupportsIndex = NUM_RCVMMSGS,
    engine: ReceiveEngine = "auto",
    send_engine: SendEngine = "auto",
    gso: bool = False,
) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return a factory of event loops whose `create_datagram_endpoint` works by batches.

    For libraries that call it themselves: one line where the program starts has all of them
    receive and send as `serve_protocol` does. Everything else is the loop's own::

        asyncio.run(main(), loop_factory=batched_loop_factory())  # Python 3.12
        anyio.run(main, backend_options={"loop_factory": batched_loop_factory(uvloop.Loop)})

        with asyncio.Runner(loop_factory=batched_loop_factory()) as runner:  # 3.11
            runner.run(main())

        loop = batched_loop_factory()()  # 3.10, or in a policy's `new_event_loop`
        loop.run_until_complete(main())

    `create_datagram_endpoint` takes all arguments that asyncio's takes, and calls the protocol as
    `serve_protocol` says; so datagrams go out, and their errors are reported, a little later than
    by asyncio's transport. Two things more:

    - A protocol whose class has a method ``datagrams_received(datagrams)`` gets a list of
      ``(bytes, address)`` by one call, instead of a `datagram_received` for each. Other loops
      don't call it: let such a protocol have `datagram_received` too.
    - ``transport.sendto_many(pairs)`` takes an iterable of ``(data, addr)``.

    As under asyncio, an error that leaves nothing to serve goes to the loop's exception handler,
    unless it is an OSError, and to `connection_lost`. Empty datagrams are sent on every Python.

    Args:
        base: A class of event loops that can watch sockets: `asyncio.SelectorEventLoop`, which is
            also what None means, `uvloop.Loop`, or one that derives from them.
        limit: The most datagrams to read before the loop goes on, at least 1.
        engine: How to receive; as for `PacketBatch`.
        send_engine: How to send; as for `send_mmsg`.
        gso: Send runs of datagrams of one size to one address in one piece; as for `send_mmsg`.

    Returns:
        A class that derives from `base`. Each call makes a loop. (What ``loop_factory`` takes is
        this class: without the parentheses it would get a class in place of a loop.)

    Raises:
        TypeError: `base` is not a class of event loops, `limit` is not an int.
        ValueError: `base` can't watch sockets, as Windows' ``asyncio.ProactorEventLoop``; `limit`
            is below 1; an engine is unknown, or unavailable here.
    """
    import asyncio  # here, so that programs on Trio do without it

    from .endpoint import AsyncioEndpoints, OtherEndpoints
    from .making import Way

    if base is None:
        base = asyncio.SelectorEventLoop
    if not isinstance(base, type) or not issubclass(base, asyncio.AbstractEventLoop):
        raise TypeError(
            f"base is {base!r}; give a class of event loops, asyncio.SelectorEventLoop or "
            f"uvloop.Loop"
        )
    proactor: Any = getattr(asyncio, "ProactorEventLoop", ())  # Windows has it alone
    if issubclass(base, proactor):
        raise ValueError(
            "asyncio.ProactorEventLoop can't watch sockets; give asyncio.SelectorEventLoop"
        )
    limit = whole_number("limit", limit, 1, "give the number of datagrams, at least 1")
    new_slots(1, 1, engine)  # refuses what is unknown
    check_engine(engine)
    check_sender(send_engine)
    way = Way(limit, engine, send_engine, gso)
    mixin = AsyncioEndpoints if issubclass(base, asyncio.BaseEventLoop) else OtherEndpoints

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update(
            _way=way, __module__="anyio_mmsg", __doc__="A loop of `batched_loop_factory`."
        )

    made: type[asyncio.AbstractEventLoop] = types.new_class(
        f"Batched{base.__name__}", (mixin, base), None, fill
    )
    return made

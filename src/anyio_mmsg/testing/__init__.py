"""For the tests of programs that use this library: packets without sockets and without a kernel.

`make_batch` returns a real `PacketBatch` that holds given packets, `fill_batch` puts some into a
batch that you have, and `ScriptedReceiver` is a `PacketReceiver` that plays a script::

    async def test_my_server():
        async with ScriptedReceiver(
            [[b"hello", (b"you", ("198.51.100.7", 53))], OSError("broken")]
        ) as receiver:
            with await receiver.receive() as batch:
                assert [bytes(packet.data) for packet in batch] == [b"hello", b"you"]
            with pytest.raises(OSError, match="broken"):
                await receiver.receive()
            assert receiver.statistics().packets == 2

Their packets go through the same code as received ones, so consumers see the same types, errors
and states. Nothing here needs pytest.

`ScriptedTransport` is the transport of an `asyncio.DatagramProtocol`: a test says what arrives,
and reads what was sent.

What a server sends can be read from the other end of a pair of sockets. Packets from None, the
peer of a connected socket, are answered there::

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    theirs.setblocking(False)
    with ours, theirs, make_batch([(b"ping", None)]) as batch:
        await send_mmsg(theirs, batch)
        assert ours.recv(9) == b"ping"
"""

from .._send.outgoing import Payload  # noqa: F401  # for typing.get_type_hints
from ._batches import fill_batch, make_batch
from ._datagrams import Datagram, DatagramLike, Sender
from ._receiver import ScriptedReceiver
from ._steps import Dropped, Step
from ._transport import ScriptedTransport

__all__ = [
    "Datagram",
    "DatagramLike",
    "Dropped",
    "ScriptedReceiver",
    "ScriptedTransport",
    "Sender",
    "Step",
    "fill_batch",
    "make_batch",
]

for _thing in (Datagram, Dropped, ScriptedReceiver, ScriptedTransport, fill_batch, make_batch):
    _thing.__module__ = __name__

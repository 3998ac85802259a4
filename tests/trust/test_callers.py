"""What callers may change, and what that must not reach: memory, lengths, the state of slots."""

from __future__ import annotations

import contextlib
import gc
import operator
import weakref
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from anyio_mmsg import (
    Packet,
    PacketBatch,
    PacketBatchPool,
    ReceiveEngine,
    recv_mmsg_exact,
    recv_mmsg_nowait,
)
from anyio_mmsg._packets import compiled

from ..helpers import Family, contents, drain
from .world import SLOT_SIZE, World, sockets


@pytest.fixture
def world(engine: ReceiveEngine) -> Iterator[World]:
    with sockets() as found:
        world = World(found, engine)
        world.send(4)
        world.receive(4)
        yield world


ATTRIBUTES = ["data", "address", "size", "truncated", "wire_size", "_wire_size", "anything"]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_a_packet_is_read_only(world: World, name: str) -> None:
    packet: Any = world.batch[0]
    for _ in range(2):  # held, then released
        with pytest.raises(AttributeError):
            setattr(packet, name, b"forged")
        with pytest.raises(AttributeError):
            delattr(packet, name)
        with pytest.raises((AttributeError, TypeError)):
            packet.__class__ = type("Other", (), {})
        world.check()
        world.batch.release()


def test_the_state_of_a_packet_is_not_the_callers(world: World) -> None:
    """A segmentation fault it was: a released packet made a held one again."""
    released, packet = world.batch[0], world.batch[1]
    assert released.address
    assert packet.address
    world.batch.release()
    for one, other in ((released, packet), (packet, released)):
        with pytest.raises((AttributeError, TypeError)):
            one.__class__ = type(other)
    with pytest.raises(ValueError, match="was released"):
        released.size  # noqa: B018
    world.check()


def test_no_packets_but_the_batch_s() -> None:
    anything: Any = Packet
    with pytest.raises(TypeError):
        anything()
    if compiled:
        with pytest.raises(TypeError):
            object.__new__(anything)
        with pytest.raises(TypeError):
            type("Mine", (Packet,), {})


@pytest.mark.skipif(compiled, reason="nothing can be set in the compiled Packet")
def test_object_setattr_reaches_no_memory(world: World) -> None:
    """Plain Python can't prevent it; but no length, no view of the batch comes from there."""
    packet: Any = world.batch[0]
    object.__setattr__(packet, "_wire_size", 10**6)
    object.__setattr__(packet, "data", memoryview(b"forged"))
    assert world.batch.sizes()[0] <= SLOT_SIZE
    assert world.batch.payloads()[0].nbytes == world.batch.sizes()[0]
    world.batch.release()
    world.finish()


@pytest.mark.parametrize("name", ["capacity", "slot_size", "engine", "free", "closed", "buffer"])
def test_a_batch_s_arguments_are_read_only(world: World, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(world.batch, name, 10**9)
    world.finish()


@pytest.mark.parametrize(
    "name",
    ["memory", "capacity", "slot_size", "head", "tail", "oldest", "engine", "wire_sizes", "base"],
)
@pytest.mark.skipif(not compiled, reason="addresses of memory are the compiled module's")
def test_the_compiled_slots_have_nothing_to_set(world: World, name: str) -> None:
    with pytest.raises(AttributeError):
        setattr(world.slots, name, 10**9)
    world.finish()


@pytest.mark.parametrize("value", [None, 0, "x", object()])
@pytest.mark.skipif(not compiled, reason="in plain Python a private attribute is anyone's")
def test_what_can_be_set_in_the_compiled_slots_crashes_nothing(world: World, value: Any) -> None:
    world.slots.filler = value
    for step in (world.check, world.finish, world.batch.close):
        try:
            step()
        except (AttributeError, TypeError, ValueError):  # of a filler that is no coroutine
            assert value is not None
    del world.slots.filler
    if not world.batch.closed:
        world.finish()
    gc.collect()


def calls(thing: Any, *args: Any) -> None:
    """Call it; what it raises, as long as it is an Exception, is fine."""
    try:
        thing(*args)
    except Exception:
        return


NUMBERS = [-1, 0, 1, 4, 5, 2**31, 2**63, -(2**63), 2**70, None, "1", 1.5, True, object(), b"", []]


@pytest.mark.skipif(not compiled, reason="what is wrong with plain Python is not memory")
def test_private_methods_of_the_compiled_objects_with_any_argument(world: World) -> None:
    """Nobody should; a mistake must still be an exception, and no packet changes."""
    for name in ("free_run", "take_back", "commit", "hand_out", "payloads", "addresses"):
        method = getattr(world.slots, name)
        calls(method)
        for one in NUMBERS:
            if name == "take_back" and one in (1, 4, None):
                continue  # which do what they say
            calls(method, one)
            for other in NUMBERS:
                calls(method, one, other)
    for sizes in ([-1], [2**40], ["x"], [None], [1] * 100, [1.5]):
        tail = world.slots.tail
        calls(world.slots.commit, sizes)
        calls(world.slots.commit, sizes, [None] * 99)
        calls(world.slots.commit, sizes, [world.slots.filler.engine])
        calls(world.slots.commit, sizes, [None], [5])
        calls(world.slots.commit, sizes, [None])
        if world.slots.tail != tail:  # a length too long, which is clamped
            assert world.batch.sizes()[-1] == SLOT_SIZE
            return
    kind = type(world.slots)
    for arguments in (
        (bytearray(8), 2, 5),
        (bytes(10), 2, 5),
        (bytearray(10), -2, -5),
        (bytearray(10), 2**62, 2**62),
        (bytearray(), 0, 0),
        (10, 2, 5),
        (memoryview(bytearray(20))[::2], 2, 5),
    ):
        with pytest.raises((ValueError, TypeError, BufferError, OverflowError)):
            kind(*arguments)
    source = world.slots.filler.engine
    for name in ("fill", "takes", "busy", "settle"):
        method = getattr(source, name)
        calls(method)
        for one in NUMBERS:
            calls(method, one)
            for other in NUMBERS:
                calls(method, one, other)
                calls(method, world.slots, other, one)
    world.check()


class Liar(PacketBatch):
    """Overrides all that is public, with nonsense."""

    __slots__ = ("extra",)
    lie = 10**6
    extra: str

    def __new__(cls, *args: Any, **kwargs: Any) -> Liar:
        return super().__new__(cls)

    def __len__(self) -> int:
        return self.lie

    def __iter__(self) -> Any:
        raise AssertionError("asked its subclass")

    def sizes(self) -> list[int]:
        return [self.lie] * 3

    def addresses(self) -> list[Any]:
        return []

    def payloads(self) -> list[memoryview]:
        return [memoryview(b"forged")]

    @property
    def free(self) -> int:
        return self.lie


@pytest.mark.parametrize("lie", [0, 1, 10**6])
def test_a_subclass_that_lies(engine: ReceiveEngine, inet: Family, lie: int) -> None:
    receiver, sender = inet.pair()
    batch = Liar(3, 8, engine)
    batch.lie = lie
    batch.extra = "a slot of its own"
    for number in range(5):
        sender.send(b"%d" % number)
    assert recv_mmsg_nowait(receiver, batch) == 3
    packets = [batch[index] for index in range(3)]
    assert [bytes(packet.data) for packet in packets] == [b"0", b"1", b"2"]
    assert [packet.address for packet in packets] == [sender.getsockname()] * 3
    with pytest.raises(ValueError, match="release of 4 packets from a batch that holds 3"):
        batch.release(4)
    batch.release(2)
    assert anyio.run(recv_mmsg_exact, receiver, batch) == 2
    assert [bytes(batch[index].data) for index in range(3)] == [b"2", b"3", b"4"]
    last = batch[2]
    batch.close()
    assert batch.closed
    with pytest.raises(ValueError, match="was released"):
        last.data  # noqa: B018
    with pytest.raises(ValueError, match="was closed"):
        PacketBatch.__len__(batch)


class Unwilling:
    """A number, once."""

    def __init__(self, value: int, also: Any = None) -> None:
        self.value, self.also = value, also

    def __index__(self) -> int:
        if self.also is not None:
            self.also()
        return self.value


def test_an_argument_that_uses_the_batch(world: World) -> None:
    """What is called for an argument comes before the work, so it can't come in between."""
    batch = world.batch
    assert batch[Unwilling(0, batch.release)].size
    with pytest.raises(ValueError, match="release of 3 packets from a batch that holds 2"):
        batch.release(Unwilling(3, batch.release))
    assert operator.index(Unwilling(1)) == 1
    world.finish()


def _call(action: Callable[[], None], reference: object) -> None:
    action()


def test_a_weak_reference_s_callback_uses_the_batch(world: World) -> None:
    """Wrong senders it had: a packet of a slot that was just being freed."""
    seen: list[Any] = []
    actions: list[Callable[[], None]] = [
        world.check,
        lambda: seen.extend(world.batch),
        world.batch.clear,
    ]
    for action in actions:
        world.send(2)
        world.receive_if_possible()
        views = world.batch.payloads()
        callbacks = [weakref.ref(view, partial(_call, action)) for view in views]
        del views
        world.batch.release(2)
        world.check()
        del callbacks
    world.finish()


def test_an_index_that_closes_the_batch(engine: ReceiveEngine, inet: Family) -> None:
    """Its slots may be lent again by then: no packet of that loan shows."""
    receiver, sender = inet.pair()
    pool = PacketBatchPool(1, engine=engine)
    batch = pool.acquire_nowait()
    sender.send(b"ours")
    drain(receiver, batch, 1)
    lent: list[PacketBatch] = []

    def close() -> None:
        batch.close()
        lent.append(pool.acquire_nowait())
        sender.send(b"another's")
        drain(receiver, lent[0], 1)

    with pytest.raises(ValueError, match="was closed"):
        batch[Unwilling(0, close)]
    assert contents(lent[0]) == [b"another's"]


def test_a_spare_view_is_nobody_s(world: World) -> None:
    """The collector shows every memoryview, those that wait for their next packet too."""
    world.check()
    world.batch.clear()
    found = [thing for thing in gc.get_objects() if type(thing) is memoryview]
    arrays = []
    for view in found:
        with contextlib.suppress(ValueError):  # released
            arrays.append(memoryview(view))
    world.finish()
    del found, arrays
    world.finish()


def test_a_batch_without_init(engine: ReceiveEngine, inet: Family) -> None:
    receiver, _ = inet.pair()
    batch = PacketBatch.__new__(PacketBatch)
    assert batch.closed
    for use in (len, list, PacketBatch.clear, PacketBatch.close):
        with pytest.raises(ValueError, match="was closed"):
            use(batch)
    with pytest.raises(ValueError, match="was closed"):
        recv_mmsg_nowait(receiver, batch)


def test_init_again(engine: ReceiveEngine, inet: Family) -> None:
    """It is then another batch; views of the first one live on with its memory."""
    receiver, sender = inet.pair()
    batch = PacketBatch(2, 8, engine)
    sender.send(b"first")
    drain(receiver, batch, 1)
    packet = batch[0]
    PacketBatch.__init__(batch, 3, 8, engine)
    sender.send(b"second")
    drain(receiver, batch, 1)
    assert contents(batch) == [b"second"]
    assert packet.data == b"first"

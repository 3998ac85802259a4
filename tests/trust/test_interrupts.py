"""A handler before every bytecode of every function that takes a batch and does not wait.

It raises, or uses other batches; with the compiled module it also receives, reads, releases or
closes, on the same batch. Then every packet is accounted for: none lost, none twice, none with
another's sender; and the batch goes on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine, compiled, recv_mmsg_nowait

from ..interrupts import NEVER, BeforeOpcode, Interrupt, of_cpython
from .world import Sockets, World, sockets

pytestmark = [pytest.mark.thorough, of_cpython]

# What a step finds


def packets_wait(world: World) -> None:
    world.send(3)


def nothing(world: World) -> None:
    pass


def around_the_end(world: World) -> None:
    world.send(4)
    world.receive(4)
    world.check()
    world.batch.release(3)
    world.send(3)


def held(world: World) -> None:
    world.send(4)
    world.receive(4)


def held_and_read(world: World) -> None:
    held(world)
    world.check(keep=True)


def held_around_the_end(world: World) -> None:
    around_the_end(world)
    world.receive(3)


def all_read_around_the_end(world: World) -> None:
    held_around_the_end(world)
    world.check(keep=True)


# The steps


def read(world: World) -> None:
    for packet in world.batch:
        try:
            seen = packet.data, packet.size, packet.truncated, packet.wire_size, repr(packet)
        except ValueError as error:  # a handler has released it
            assert "was released" in str(error)  # noqa: PT017
        else:
            assert len(seen) == 5


def ask_addresses(world: World) -> None:
    for packet in world.batch:
        try:
            address = packet.address
        except ValueError as error:
            assert "was released" in str(error)  # noqa: PT017
        else:
            assert address in world.sockets.names


def index(world: World) -> None:
    try:
        world.batch[-1], world.batch[1:3]
    except IndexError:  # a handler has released some
        assert world.slots.head > world.slots.tail - 4


def count(world: World) -> None:
    assert len(world.batch) <= 5
    assert world.batch.free <= 5


def leave_with(world: World) -> None:
    with world.batch:
        pass


Step = Callable[[World], object]
READY: list[Step] = [held, held_and_read, held_around_the_end]
STEPS: dict[str, tuple[Step, list[Step]]] = {
    "receive": (World.receive_if_possible, [packets_wait, nothing, around_the_end]),
    "receive two": (lambda world: world.receive_if_possible(2), [packets_wait, around_the_end]),
    "read": (read, READY),
    "addresses of packets": (ask_addresses, READY),
    "index": (index, [held, held_around_the_end]),
    "payloads": (lambda world: world.batch.payloads(), READY),
    "addresses": (lambda world: world.batch.addresses(), READY),
    "sizes": (lambda world: world.batch.sizes(), [held, held_around_the_end]),
    "count": (count, [held]),
    "release": (
        lambda world: world.batch.release(2),
        [held, held_and_read, held_around_the_end, all_read_around_the_end],
    ),
    "clear": (lambda world: world.batch.clear(), [*READY, all_read_around_the_end]),
    "close": (lambda world: world.batch.close(), [held, held_and_read]),
    "with": (leave_with, [held_and_read]),
}

# The handlers


def raises(world: World) -> None:
    raise Interrupt


def receives(world: World) -> None:
    world.receive_if_possible(1)


def reads(world: World) -> None:
    world.check(keep=True)


def releases(world: World) -> None:
    if len(world.batch):
        world.batch.release(1)


def does_it_all(world: World) -> None:
    world.check(keep=True)
    releases(world)
    world.send(1)
    world.receive_if_possible()
    world.check(keep=True)


def closes(world: World) -> None:
    world.batch.close()


def uses_others(world: World) -> None:
    """Make calls that fail, too: errno is then another one."""
    other = PacketBatch(2, engine=world.batch.engine)
    sock = world.sockets.senders[0]
    with pytest.raises(anyio.WouldBlock):
        recv_mmsg_nowait(sock, other)
    sock.sendto(b"to another one", sock.getsockname())
    assert recv_mmsg_nowait(sock, other) == 1
    with pytest.raises(OSError):
        sock.sendto(b"x", ("127.0.0.1", 0))
    assert [(bytes(packet.data), packet.address) for packet in other] == [
        (b"to another one", sock.getsockname())
    ]


ON_OTHERS = [raises, uses_others]
HANDLERS = [*ON_OTHERS, receives, reads, releases, does_it_all, closes] if compiled else ON_OTHERS
AGAIN = ["release", "clear", "close", "with"]
"""The steps that are done after an interrupt, or have to be done again."""


@pytest.fixture(scope="module")
def world_sockets() -> Iterator[Sockets]:
    with sockets() as found:
        yield found


def interrupted(
    world: World, step: Step, handler: Callable[[World], object], at: int, again: bool = False
) -> BeforeOpcode:
    """Do `step`; `handler` comes before bytecode number `at`. `again`: if it raises, repeat it."""

    def handle() -> None:
        if world.batch.closed:
            return
        try:
            handler(world)
        except (ValueError, anyio.BusyResourceError) as error:
            # A batch that is being filled, or was closed by what the handler comes in between.
            assert "receiving into" in str(error) or world.batch.closed, error  # noqa: PT017

    with BeforeOpcode(at, handle, everywhere=handler is raises) as point:
        failed: ValueError | None = None
        try:
            step(world)
        except Interrupt:
            if again and not world.batch.closed:
                step(world)
        except ValueError as error:
            failed = error
    if failed is not None and not world.batch.closed:
        raise failed
    return point


def account(world: World) -> None:
    if world.batch.closed:
        world.check_kept()
    else:
        world.finish()


@pytest.mark.parametrize("handler", HANDLERS)
@pytest.mark.parametrize("name", STEPS)
def test_at_every_bytecode(
    engine: ReceiveEngine, world_sockets: Sockets, name: str, handler: Callable[[World], object]
) -> None:
    step, setups = STEPS[name]
    for setup in setups:
        world = World(world_sockets, engine)
        setup(world)
        interrupted(world, step, handler, NEVER)
        at = 0
        while True:
            world = World(world_sockets, engine)
            setup(world)
            point = interrupted(world, step, handler, at, name in AGAIN)
            if not point.reached:
                break
            try:
                account(world)
            except Exception as error:
                raise AssertionError(f"after {setup.__name__}, at {point.where}") from error
            at += 1
        assert at > 1, "too few bytecodes to be true"


@pytest.mark.parametrize("setup", [all_read_around_the_end, around_the_end])
def test_one_interrupt_upon_another(
    engine: ReceiveEngine, world_sockets: Sockets, setup: Step, trust_rounds: int
) -> None:
    """What repairs an interrupted step is interrupted itself."""
    rng = random.Random(4)
    names = ("receive", "read", "release", "payloads", "clear")
    for number in range(1000 * trust_rounds):
        world = World(world_sockets, engine)
        setup(world)
        places = []
        for _ in range(4):
            name = rng.choice(names)
            try:
                point = interrupted(
                    world, STEPS[name][0], raises, rng.randrange(400), name in AGAIN
                )
                places.append(point.where)
            except ValueError as error:
                assert "release of 2 packets" in str(error)  # noqa: PT017
            world.send(1)
        try:
            account(world)
        except Exception as error:
            raise AssertionError(f"round {number}, at {places}") from error


def test_development_mode(world_sockets: Sockets, engine: ReceiveEngine, monkeypatch: Any) -> None:
    """Released slots are overwritten there, but only what is released for good."""
    monkeypatch.setattr("anyio_mmsg._packets.batch.sys.flags", _DevelopmentMode)
    assert PacketBatch(2, engine=engine)._slots is not None
    for name in ("release", "clear"):
        test_at_every_bytecode(engine, world_sockets, name, raises)
        if compiled:
            test_at_every_bytecode(engine, world_sockets, name, does_it_all)
    world = World(world_sockets, engine)
    held(world)
    world.batch.clear()
    assert bytes(world.batch.buffer[:10]) == b"\xdd" * 10


class _DevelopmentMode:
    dev_mode = True

"""aclose_udp_socket: tasks that wait for a socket learn that it was closed."""

from __future__ import annotations

import contextlib
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketBatch, PacketReceiver, aclose_udp_socket, recv_mmsg, send_mmsg
from anyio_mmsg._stream import closing, port, readiness, registration
from anyio_mmsg._system import beacon

from ..helpers import Family, assert_others_run
from ..interrupts import Interrupt, every_bytecode, interrupt, unreported

pytestmark = pytest.mark.anyio

wakes = pytest.mark.skipif(
    not hasattr(anyio, "notify_closing"), reason="anyio.notify_closing came with AnyIO 4.10"
)


@wakes
async def test_who_waits_for_a_packet_is_woken(family: Family) -> None:
    sock = family.open()

    async def receive() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await recv_mmsg(sock, PacketBatch())

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await aclose_udp_socket(sock)
    assert sock.fileno() == -1


@wakes
async def test_a_new_socket_very_likely_with_its_number_works(inet: Family) -> None:
    sock = inet.open()

    async def receive() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await recv_mmsg(sock, PacketBatch())

    batch = PacketBatch()
    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await aclose_udp_socket(sock)
            again = inet.open()
            tasks.start_soon(recv_mmsg, again, batch)
            await anyio.wait_all_tasks_blocked()
            await send_mmsg(inet.open(), [(b"x", again.getsockname())])
    assert len(batch) == 1


async def test_a_receiver_is_woken_and_lets_go_of_the_address_too(inet: Family) -> None:
    """But on Linux it has a second descriptor of the socket, which keeps the address in use."""
    sock = inet.open()
    address = sock.getsockname()
    receiver = PacketReceiver(sock)

    async def receive() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await receiver.receive()

    with anyio.fail_after(60):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(receive)
            await anyio.wait_all_tasks_blocked()
            await aclose_udp_socket(sock)
        with pytest.raises(anyio.ClosedResourceError):
            await receiver.receive()
    inet.unbound().bind(address)
    await receiver.aclose()


@pytest.mark.thorough
async def test_interrupted_and_called_again(inet: Family) -> None:
    """Wherever an interrupt comes, the second call closes the socket and wakes its receiver."""
    with unreported():  # an interrupt may keep the checkpoint from starting
        await interrupt_everywhere(inet)


async def interrupt_everywhere(inet: Family) -> None:
    points = 0
    modules = [closing, port, readiness, registration, beacon]
    closes = aclose_udp_socket.__code__  # not what the woken task does meanwhile
    for point in every_bytecode(interrupt, within=modules, under=closes):
        sock = inet.open()
        receiver = PacketReceiver(sock)
        woken: list[bool] = []

        async def receive(receiver: PacketReceiver, woken: list[bool]) -> None:
            with pytest.raises(anyio.ClosedResourceError):
                await receiver.receive()
            woken.append(True)

        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(receive, receiver, woken)
                await anyio.wait_all_tasks_blocked()
                with point, contextlib.suppress(Interrupt):
                    await aclose_udp_socket(sock)
                await aclose_udp_socket(sock)
        assert woken, point.where
        assert sock.fileno() == -1
        await receiver.aclose()
        points += point.reached
    assert points > 20


async def test_a_checkpoint_that_closes_even_if_cancelled(
    inet: Family, anyio_backend_name: str
) -> None:
    sock = inet.open()
    with anyio.CancelScope() as scope:
        scope.cancel()
        await aclose_udp_socket(sock)
    assert scope.cancelled_caught
    assert sock.fileno() == -1
    with assert_others_run(anyio_backend_name):  # closing it again does nothing
        await aclose_udp_socket(sock)


async def test_something_else() -> None:
    wrong: Any
    for wrong in (3, None, anyio.Event()):
        with pytest.raises(TypeError, match=r"and has to be a socket\.socket"):
            await aclose_udp_socket(wrong)

"""What a batch for trains is made of, and what it says of itself."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path
from typing import Any

import anyio
import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine, recv_mmsg, recv_mmsg_exact, recv_mmsg_nowait
from anyio_mmsg._packets.batch import TRAIN_SIZE
from anyio_mmsg._system.control import SOL_UDP, UDP_GRO

from .flow import Flow, check, drain, numbered


def test_a_slot_takes_any_train() -> None:
    assert PacketBatch(gro=True).slot_size == TRAIN_SIZE == 65_535
    assert PacketBatch(slot_size=1232, gro=True).slot_size == 65_535
    assert PacketBatch(slot_size=65_535, gro=True).slot_size == 65_535


@pytest.mark.parametrize("slot_size", [1, 1231, 1233, 9000, 65_534, 65_536])
def test_another_slot_size_is_refused(slot_size: int) -> None:
    with pytest.raises(ValueError, match=f"slot_size is {slot_size}; leave it out with gro=True"):
        PacketBatch(slot_size=slot_size, gro=True)


@pytest.mark.parametrize("value", [1, 0, None, "yes"])
@pytest.mark.parametrize("name", ["gro", "ancillary"])
def test_flags_are_bools(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{name} is a {type(value).__name__}; give True or False"):
        PacketBatch(**{name: value})


def test_fields_say_how_it_was_made() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(PacketBatch)}
    assert fields == {
        "capacity": 64,
        "slot_size": 1232,
        "engine": "auto",
        "gro": False,
        "ancillary": False,
        "memory": None,
    }
    batch = PacketBatch(3, engine="recvfrom_into", gro=True, ancillary=True)
    assert dataclasses.asdict(batch) == {
        "capacity": 3,
        "slot_size": 65_535,
        "engine": "recvfrom_into",
        "gro": True,
        "ancillary": True,
        "memory": None,
    }
    other = PacketBatch()
    assert (other.gro, other.ancillary) == (False, False)
    for name in ("gro", "ancillary"):
        with pytest.raises(AttributeError, match=f"{name} can't be set"):
            setattr(batch, name, False)


def test_repr_counts_packets_and_free_slots(engine: ReceiveEngine, inet: Flow) -> None:
    batch = PacketBatch(4, engine=engine, gro=True)
    assert repr(batch) == "<PacketBatch capacity=4 held=0 free=4>"
    inet.send(*numbered(7, 10))
    drain(inet.receiver, batch)
    assert repr(batch) == "<PacketBatch capacity=4 held=7 free=3>"
    batch.release(6)
    assert repr(batch) == "<PacketBatch capacity=4 held=1 free=3>"
    assert repr(batch[0]).startswith("<Packet of 10 bytes from ('127.0.0.1', ")


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def test_memory_is_provided_where_it_is_written_to(engine: ReceiveEngine, inet: Flow) -> None:
    before = _resident_bytes()
    batches = [PacketBatch(64, engine=engine, gro=True) for _ in range(16)]
    for batch in batches:
        inet.send(*numbered(5, 100))
        drain(inet.receiver, batch)
    assert sum(len(batch.buffer) for batch in batches) == 16 * 64 * 65_535
    assert _resident_bytes() - before < 16 * 64 * 65_535 // 4


@pytest.mark.parametrize("receive", ["recv_mmsg", "recv_mmsg_nowait", "recv_mmsg_exact"])
def test_a_batch_without_gro_is_refused_and_nothing_lost(
    receive: str, engine: ReceiveEngine, inet: Flow, anyio_backend: Any
) -> None:
    packets = inet.send(*numbered(5, 100)) + inet.single(b"one")
    plain = PacketBatch(8, engine=engine)

    async def nowait(sock: socket.socket, batch: PacketBatch) -> int:
        return recv_mmsg_nowait(sock, batch)

    call: Any = {"recv_mmsg": recv_mmsg, "recv_mmsg_exact": recv_mmsg_exact}.get(receive, nowait)

    async def main() -> None:
        for _ in range(3):  # each time
            with (
                pytest.raises(ValueError, match=r"UDP_GRO on.*PacketBatch\(gro=True\)"),
                anyio.fail_after(60),
            ):
                await call(inet.receiver, plain)

    anyio.run(main, backend=anyio_backend[0], backend_options=anyio_backend[1])
    assert len(plain) == 0
    batch = PacketBatch(8, engine=engine, gro=True)
    drain(inet.receiver, batch)
    check(batch, packets, inet.names[:1] * 6)


def test_a_batch_without_gro_that_was_used_elsewhere_is_refused(
    engine: ReceiveEngine, inet: Flow
) -> None:
    plain = PacketBatch(8, engine=engine)
    other = inet.open()
    inet.sender.sendto(b"plain", other.getsockname())
    assert recv_mmsg_nowait(other, plain) == 1
    inet.send(*numbered(5, 100))
    with pytest.raises(ValueError, match="UDP_GRO on"):
        recv_mmsg_nowait(inet.receiver, plain)
    inet.sender.sendto(b"plain", other.getsockname())
    assert recv_mmsg_nowait(other, plain) == 1
    with pytest.raises(ValueError, match="UDP_GRO on"):
        recv_mmsg_nowait(inet.receiver, plain)
    assert plain.payloads() == [b"plain"] * 2


def test_a_socket_is_not_known_by_an_address_that_is_used_again(engine: ReceiveEngine) -> None:
    """A socket that was checked is gone, and one that is made after it may have its id."""
    plain = PacketBatch(64, engine=engine)
    for _ in range(20):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            sock.sendto(b"plain", sock.getsockname())
            assert recv_mmsg_nowait(sock, plain) == 1
            name = id(sock)
        del sock
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
            sock.setsockopt(SOL_UDP, UDP_GRO, 1)
            sock.sendto(b"plain", sock.getsockname())
            with pytest.raises(ValueError, match="UDP_GRO on"):
                recv_mmsg_nowait(sock, plain)
            again = id(sock) == name
        del sock
        if again:
            return

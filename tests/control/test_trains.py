"""Control data of trains: that of the message, for each of its packets."""

from __future__ import annotations

import struct

import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine, recv_mmsg_nowait

from .packets import ALL, LOOPBACK, Line

SOL_UDP, UDP_SEGMENT = 17, 103  # linux/udp.h


def send_train(line: Line, data: bytes, segment: int, tos: int, host: str) -> None:
    line.send(b"", host, tos)  # sets the options, too
    control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", segment))]
    line.sender.sendmsg([data], control, 0, (host, line.port))


@pytest.fixture(params=[1, 4, 52])
def count(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def test_all_together(count: int, kind: str, engine: ReceiveEngine) -> None:
    batch = PacketBatch(8, engine=engine, gro=True, ancillary=True)
    with Line(kind, **ALL, gro=True) as line:
        hosts = [line.hosts[0], line.hosts[-1]]
        for tos, host in zip((1, 2), hosts, strict=True):
            send_train(line, b"x" * (100 * count), 100, tos, host)
        assert recv_mmsg_nowait(line.receiver, batch) == 2 + 2 * count
        assert batch.sizes() == [0, *[100] * count] * 2
        assert batch.ecns() == [1] * (count + 1) + [2] * (count + 1)
        assert batch.hop_limits() == [64] * (2 + 2 * count)
        assert batch.interfaces() == [LOOPBACK] * (2 + 2 * count)
        shown = [line.shown(host) for host in hosts]
        assert batch.destinations() == shown[:1] * (count + 1) + shown[1:] * (count + 1)
        stamps = batch.timestamps()
        assert len(set(stamps[1 : count + 1])) == 1
        assert None not in stamps
        batch.release(3)
        assert batch.timestamps() == stamps[3:]
        assert [packet.timestamp for packet in batch] == stamps[3:]
        assert batch.addresses() == [line.name] * len(batch)


def test_control_data_that_nobody_asked_for(kind: str, engine: ReceiveEngine) -> None:
    """A batch for trains alone: the segment size is found among the rest."""
    batch = PacketBatch(8, engine=engine, gro=True)
    with Line(kind, **ALL, gro=True) as line:
        send_train(line, b"x" * 950, 100, 3, line.hosts[0])
        assert recv_mmsg_nowait(line.receiver, batch) == 11
        assert batch.sizes() == [0, *[100] * 9, 50]
        for _ in range(2):  # of the train, some packets are released the second time
            with pytest.raises(ValueError, match="holds no control data"):
                batch.timestamps()
            list(batch)
            batch.release(5)

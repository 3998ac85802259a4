"""Files that come with messages of unix sockets: nobody here asks for them, so they are closed."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from anyio_mmsg import PacketBatch, ReceiveEngine, recv_mmsg_nowait

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts files as Linux shows them")


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.parametrize("ancillary", [False, True])
def test_are_closed(engine: ReceiveEngine, ancillary: bool, count: int) -> None:
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with receiver, sender:
        receiver.setblocking(False)
        reads, writes = os.pipe()
        batch = PacketBatch(8, engine=engine, ancillary=ancillary)
        for number in range(6):
            socket.send_fds(sender, [b"%d" % number], [reads] * (number % 2 * count))
        before = open_files()
        assert recv_mmsg_nowait(receiver, batch) == 6
        assert open_files() == before
        assert batch.payloads() == [b"%d" % number for number in range(6)]
        os.fstat(reads)  # ours is still open
        for file in (reads, writes):
            os.close(file)

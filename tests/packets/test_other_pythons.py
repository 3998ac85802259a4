"""A Python that counts no references, such as PyPy: released packets are dead there too."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import sys
if hasattr(sys, "getrefcount"):
    del sys.getrefcount
from anyio_mmsg import PacketBatch, compiled
from tests.helpers import stub_engine

assert not compiled
batch = PacketBatch(4, 8)
stub_engine(batch).put(b"data", ("host", 1))
packet = batch[0]
assert (packet.data, packet.address) == (b"data", ("host", 1))
batch.release()
for name in ("data", "address", "size", "truncated", "wire_size", "timestamp"):
    try:
        print(getattr(packet, name))
    except ValueError as error:
        assert str(error).startswith("this packet was released"), error
"""


def test_a_released_packet_is_dead() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        env={**os.environ, "ANYIO_MMSG_COMPILED": "0"},
        cwd=Path(__file__).parent.parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)

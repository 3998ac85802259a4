"""Programs on Trio do without asyncio, which takes longer to import than all of this package."""

from __future__ import annotations

import subprocess
import sys

from ..helpers import without_trio


@without_trio
def test_trio_alone() -> None:
    program = """if True:
        import sys, anyio, trio
        imported = "asyncio" in sys.modules  # by AnyIO or Trio themselves
        from anyio_mmsg import PacketBatch, open_udp_socket, recv_mmsg, send_mmsg, serve_protocol

        async def main():
            sock, batch = await open_udp_socket("127.0.0.1"), PacketBatch()
            with sock:
                await send_mmsg(sock, [(b"x", sock.getsockname())] * 64)
                while len(batch) < 64:
                    await recv_mmsg(sock, batch, 8)
                try:
                    await serve_protocol(sock, None)
                except RuntimeError:
                    print("refused")

        trio.run(main)
        assert ("asyncio" in sys.modules) == imported
        """
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    assert run.stdout == b"refused\n"

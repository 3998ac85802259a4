"""docs/scaling.md: its program steers packets."""

from __future__ import annotations

import os
import socket
import sys

import pytest

from .blocks import as_module, python_blocks, runs

(STEER,) = python_blocks("docs/scaling.md")


@pytest.mark.skipif(sys.platform != "linux", reason="SO_ATTACH_REUSEPORT_CBPF is Linux's")
@runs(STEER)
def test_packets_go_to_the_socket_of_their_core() -> None:
    steer_by_cpu = as_module(STEER)["steer_by_cpu"]
    cores = os.sched_getaffinity(0)
    workers = max(cores) + 1
    group = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(workers)]
    try:
        port = 0
        for sock in group:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind(("127.0.0.1", port))
            sock.settimeout(60)
            port = sock.getsockname()[1]
        steer_by_cpu(group[0], workers)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for core in cores:  # loopback delivers on the core that sends
                os.sched_setaffinity(0, {core})
                sender.sendto(b"%d" % core, ("127.0.0.1", port))
                assert group[core].recv(100) == b"%d" % core
    finally:
        os.sched_setaffinity(0, cores)
        for sock in group:
            sock.close()

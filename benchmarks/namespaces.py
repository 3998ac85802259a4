"""Two network namespaces with a veth pair between them, which end with the processes in them.

They have no names, and nothing of them is left however the processes end: the kernel removes a
namespace, and its devices, with its last process (network_namespaces(7), veth(4)). The addresses
are private ones and exist in there only. No packet leaves the machine.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .spec import UnavailableError

NEAR, FAR = "10.9.0.1", "10.9.0.2"  # the senders' address, and the receivers'

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_SIOCETHTOOL = 0x8946  # linux/sockios.h
_ETHTOOL_STSO, _ETHTOOL_SGRO = 0x1F, 0x2C  # linux/ethtool.h
_SEGMENTS = 65_535  # what a veth device takes at the most, as it is made


class VethPair:
    """Moves this thread into a network of its own, and makes a second one that a veth leads to.

    The thread stays in the far one. Only a process that ends with the benchmark should do this.

    Raises:
        UnavailableError: It can't be done here.
    """

    def __init__(self) -> None:
        if sys.platform != "linux":
            raise UnavailableError("network namespaces are a part of Linux")
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._near = self._make()
        self._far = self._make()
        _ip("link add far type veth peer name near")
        _ip(f"link set near netns /proc/{os.getpid()}/fd/{self._near}")
        _ip(f"address add {FAR}/24 dev far")
        _ip("link set far up")
        with self.near():
            _ip(f"address add {NEAR}/24 dev near")
            _ip("link set near up")

    @contextmanager
    def near(self) -> Iterator[None]:
        """Be in the near network meanwhile: sockets and processes that are made belong to it."""
        self._call("setns", self._near, 0)
        try:
            yield
        finally:
            self._call("setns", self._far, 0)

    def arrange(self, *, cut: bool, coalesce: bool) -> None:
        """Say how trains cross.

        Args:
            cut: The near end takes no trains: the kernel cuts them up before they cross.
            coalesce: The far end does GRO, as network cards do.

        Raises:
            UnavailableError: This kernel, or this `ip`, can't do that.
        """
        with self.near():
            _ip(f"link set near gso_max_segs {1 if cut else _SEGMENTS}")
            # A veth does GRO only for who does no TSO (`veth_skb_is_eligible_for_gro`).
            _switch("near", _ETHTOOL_STSO, not coalesce)
        _switch("far", _ETHTOOL_SGRO, coalesce)

    def _make(self) -> int:
        """Move the thread into a new network; return the network's descriptor."""
        self._call("unshare", _CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY)

    def _call(self, name: str, *arguments: int) -> None:
        if getattr(self._libc, name)(*arguments):
            reason = os.strerror(ctypes.get_errno())
            raise UnavailableError(f"no network namespaces here ({name}: {reason})")


def _ip(command: str) -> None:
    """Run ip(8)."""
    program = shutil.which("ip")
    if program is None:
        raise UnavailableError("ip (of iproute2) is not installed")
    done = subprocess.run([program, *command.split()], check=False, capture_output=True, text=True)
    if done.returncode:
        says = done.stderr.strip().partition("\n")[0]
        raise UnavailableError(f"`ip {command.split('/proc')[0].strip()}` is refused: {says}")


def _switch(device: str, feature: int, on: bool) -> None:
    """Do what `ethtool -K DEVICE gro on` does, which is not installed everywhere."""
    import fcntl  # there is none on Windows

    value = ctypes.create_string_buffer(struct.pack("=II", feature, on))
    request = struct.pack("16sP16x", device.encode(), ctypes.addressof(value))
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        try:
            fcntl.ioctl(sock, _SIOCETHTOOL, request)
        except OSError as error:
            raise UnavailableError(f"a veth's features can't be switched: {error}") from None

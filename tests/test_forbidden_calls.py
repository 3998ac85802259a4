"""A system that refuses recvmmsg and sendmmsg: a seccomp filter makes the real calls fail."""

from __future__ import annotations

import platform
import struct
import subprocess
import sys

import pytest

from anyio_mmsg._system.platform import why_no_batch_calls

from .helpers import each_loop

# System call numbers by machine and bits, from the kernel's tables (arch/*/entry/syscalls). A
# 32-bit C library has two recvmmsg: one for 64-bit times, tried first, and the older one.
BITS = 8 * struct.calcsize("P")
# recvmmsg and sendmmsg.
NUMBERS = {
    ("x86_64", 64): [299, 307],
    ("x86_64", 32): [417, 337, 345],
    ("i686", 32): [417, 337, 345],
    ("aarch64", 64): [243, 269],
    ("aarch64", 32): [417, 365, 374],
    ("armv7l", 32): [417, 365, 374],
    ("riscv64", 64): [243, 269],
    ("ppc64le", 64): [343, 349],
    ("s390x", 64): [357, 358],
}.get((platform.machine(), BITS))

PROGRAM = """
import ctypes, errno, socket, struct, sys
import anyio
from anyio_mmsg import PacketBatch, recv_mmsg, recv_mmsg_nowait, send_mmsg, send_mmsg_nowait
from anyio_mmsg._system.platform import Refused

refusal, backend = getattr(errno, sys.argv[1]), sys.argv[2]
numbers = [int(number) for number in sys.argv[3:]]
receiver, sender = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
receiver.bind(("127.0.0.1", 0))
receiver.setblocking(False)
sender.bind(("127.0.0.1", 0))
sender.connect(receiver.getsockname())
sender.setblocking(False)

def forbid_calls():
    def instruction(code, jump_true, jump_false, value):
        return struct.pack("=HBBI", code, jump_true, jump_false, value)
    program = [instruction(0x20, 0, 0, 0)]                     # load the system call's number
    for number in numbers:
        program += [
            instruction(0x15, 0, 1, number),                   # is it forbidden?
            instruction(0x06, 0, 0, 0x00050000 | refusal),     # SECCOMP_RET_ERRNO
        ]
    program.append(instruction(0x06, 0, 0, 0x7FFF0000))        # SECCOMP_RET_ALLOW
    memory = ctypes.create_string_buffer(b"".join(program))
    fprog = struct.pack("HP", len(program), ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
    if libc.prctl(22, 2, fprog, 0, 0) != 0:
        print("no seccomp here:", errno.errorcode[ctypes.get_errno()])
        sys.exit(77)

async def main():
    before = PacketBatch(4, engine="recvmmsg")   # has packets when the call goes
    sender.send(b"1")
    sender.send(b"2")
    assert await recv_mmsg(receiver, before) == 2
    kept = before.payloads()
    assert send_mmsg_nowait(sender, [(b"3", None)]).sent == 1
    assert not Refused.sendmmsg
    forbid_calls()
    for data in (b"4", b"5"):
        sender.send(data)
    before.release()
    assert await recv_mmsg(receiver, before) == 3, "around the ring's end"
    assert before.payloads() == [b"2", b"3", b"4", b"5"]
    assert kept[1] == b"2"
    assert before.addresses() == [sender.getsockname()] * 4
    for engine in ("auto", "recvmmsg"):
        after = PacketBatch(4, engine=engine)
        sender.send(b"6")
        assert await recv_mmsg(receiver, after) == 1
        assert after.payloads() == [b"6"]
        assert type(after._slots.filler.engine).__name__ == "RecvfromInto"
        try:
            recv_mmsg_nowait(receiver, after)
        except anyio.WouldBlock:
            pass
        else:
            raise AssertionError("there was no packet")
    datas = [b"%d" % number for number in range(9)]
    for engine in ("auto", "sendmmsg", "auto"):
        sent = await send_mmsg(sender, [(data, None) for data in datas], engine=engine, gso=True)
        assert (sent.sent, sent.failures) == (9, [])
        assert [receiver.recv(10) for _ in datas] == datas
        assert Refused.sendmmsg
    print("fell back")

with receiver, sender:
    anyio.run(main, backend=backend)
"""


@pytest.mark.skipif(bool(why_no_batch_calls()), reason=why_no_batch_calls())
@pytest.mark.skipif(NUMBERS is None, reason="the system calls' numbers here are not known to us")
@pytest.mark.parametrize("refusal", ["ENOSYS", "EPERM"])
@each_loop
def test_falls_back_for_good_without_loss(refusal: str, backend: str) -> None:
    command = [sys.executable, "-W", "error", "-c", PROGRAM, refusal, backend]
    command += map(str, NUMBERS or [])
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert (done.stdout, done.returncode) == ("fell back\n", 0), done.stderr
    reports = done.stderr.splitlines()  # by Python's last resort, as the program logs nothing
    assert [report.partition(":")[0] for report in reports] == [
        "the system refuses recvmmsg(2)",
        "the system refuses sendmmsg(2)",
    ]

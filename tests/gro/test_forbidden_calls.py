"""A system that begins to refuse recvmmsg: trains and control data go on without it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from anyio_mmsg import compiled

from ..test_forbidden_calls import NUMBERS

PROGRAM = """
import ctypes, errno, struct, sys
from anyio_mmsg import PacketBatch, recv_mmsg_nowait
from anyio_mmsg._receive.recvfrom_into import RecvfromInto
from anyio_mmsg._system.platform import Refused
from tests.gro.flow import Flow, numbered

refusal, gro, ancillary = getattr(errno, sys.argv[1]), "gro" in sys.argv, "ancillary" in sys.argv
number = int(sys.argv[2])

def forbid():
    program = b"".join(struct.pack("=HBBI", *instruction) for instruction in (
        (0x20, 0, 0, 0),                     # load the system call's number
        (0x15, 0, 1, number),                # is it forbidden?
        (0x06, 0, 0, 0x00050000 | refusal),  # SECCOMP_RET_ERRNO
        (0x06, 0, 0, 0x7FFF0000),            # SECCOMP_RET_ALLOW
    ))
    memory = ctypes.create_string_buffer(program)
    fprog = struct.pack("HP", len(program) // 8, ctypes.addressof(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS"
    if libc.prctl(22, 2, fprog, 0, 0) != 0:
        print("no seccomp here:", errno.errorcode[ctypes.get_errno()])
        sys.exit(77)

def send(count, start):
    packets = numbered(count, 50, last=7, start=start)
    return flow.send(*packets) if gro else [data for p in packets for data in flow.single(p)]

def check():
    assert batch.payloads() == sent, (batch.payloads(), sent)
    assert batch.addresses() == flow.names[:1] * len(sent)
    if ancillary:
        assert batch.hop_limits() == [64] * len(sent)
        assert batch.destinations() == ["127.0.0.1"] * len(sent)
        assert None not in batch.timestamps()
    else:
        try:
            batch[0].timestamp
        except ValueError as error:
            assert "ancillary=True" in str(error)

asked = dict.fromkeys(["timestamps", "destinations", "hop_limits"], ancillary)
with Flow(gro=gro, **asked) as flow:
    batch = PacketBatch(12, engine="recvmmsg", gro=gro, ancillary=ancillary)
    sent = send(4, 0)
    assert recv_mmsg_nowait(flow.receiver, batch) == 4
    kept = batch[3]
    forbid()
    sent += send(5, 10)
    assert recv_mmsg_nowait(flow.receiver, batch) == 5
    assert Refused.recvmmsg
    assert isinstance(batch._slots.filler.engine, RecvfromInto)
    check()
    assert bytes(kept.data) == sent[3]
    assert not ancillary or kept.hop_limit == 64
    batch.release(2)
    del sent[:2]
    check()
    batch.clear()
    for turn in range(5):
        sent = send(3, turn)
        assert recv_mmsg_nowait(flow.receiver, batch) == 3
        check()
        batch.clear()
    batch = PacketBatch(12, gro=gro, ancillary=ancillary)
    sent = send(6, 1)
    assert recv_mmsg_nowait(flow.receiver, batch) == 6
    check()
    print("fell back")
"""


@pytest.mark.skipif(not compiled, reason="recvmmsg needs the compiled module")
@pytest.mark.skipif(NUMBERS is None, reason="the system calls' numbers here are not known to us")
@pytest.mark.parametrize("refusal", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize("what", [("gro",), ("ancillary",), ("gro", "ancillary")])
def test_falls_back_in_mid_use(refusal: str, what: tuple[str, ...]) -> None:
    assert NUMBERS is not None
    command = [sys.executable, "-W", "error", "-c", PROGRAM, refusal, str(NUMBERS[0]), *what]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert (done.stdout, done.returncode) == ("fell back\n", 0), done.stderr
    assert done.stderr.startswith("the system refuses recvmmsg(2): ")
    assert done.stderr.count("\n") == 1  # by Python's last resort, as the program logs nothing

"""``python -m anyio_mmsg``."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings
from typing import Any

import anyio
import pytest
from anyio import fail_after

import anyio_mmsg
from anyio_mmsg import SendFailure, SendResult
from anyio_mmsg._system.platform import ON_LINUX, Refused, why_no_batch_calls
from anyio_mmsg._tools import report as program

from .helpers import have_ipv6

ROWS = ["anyio-mmsg", "compiled", "Python", "anyio", "trio", "uvloop", "system", "recvmmsg"]
ROWS += ["sendmmsg", "GRO", "GSO", "control data", "IPv6", "limits", "buffers"]


@pytest.mark.parametrize("wanted", ["", "0"], ids=["as it is", "plain"])
def test_it_prints_a_table(wanted: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "anyio_mmsg"],
        env=os.environ | {"ANYIO_MMSG_COMPILED": wanted},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line[:13].strip(): line[14:] for line in done.stdout.splitlines()}
    assert list(rows) == ROWS
    assert all(rows.values())
    assert rows["anyio"][0].isdigit()
    if wanted == "0":
        assert rows["compiled"] == "no: ANYIO_MMSG_COMPILED=0 switches it off"
        assert rows["recvmmsg"].startswith("no: it needs")
    elif anyio_mmsg.compiled and ON_LINUX:
        assert rows["compiled"] == "yes"


@pytest.mark.anyio
async def test_what_it_tries_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "BUFFER", 4096)  # which every system grants
    rows = dict(await program.report())
    twice = " (SO_RCVBUF and SO_SNDBUF say twice that)" if ON_LINUX else ""
    assert rows["buffers"] == f"of 4,096 bytes asked for, receives 4,096, sends 4,096{twice}"
    assert rows["IPv6"] == "yes" or not have_ipv6()
    if not why_no_batch_calls():
        assert (rows["recvmmsg"], rows["sendmmsg"]) == ("yes", "yes")
    if ON_LINUX:
        assert rows["control data"] == "timestamps, destinations, ecn, hop_limits"
        assert "rmem_max" in rows["limits"] or rows["limits"] == "not known"


@pytest.mark.anyio
@pytest.mark.parametrize("most", [2048, 4096, None])
async def test_more_than_the_limit_is_explained(
    monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    monkeypatch.setattr(program, "BUFFER", 4096)
    monkeypatch.setattr(program, "limit", {"rmem_max": most, "wmem_max": 4096}.get)
    assert ("CAP_NET_ADMIN" in await program.buffers()) == (most == 2048)


@pytest.mark.anyio
async def test_fewer_bytes_than_asked_for_are_no_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_one(*args: Any, **options: Any) -> socket.socket:
        warnings.warn("the system granted less", RuntimeWarning, stacklevel=2)
        return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    monkeypatch.setattr(program, "open_udp_socket", open_one)
    text = await program.buffers()
    assert text.startswith("of 8,388,608 bytes asked for, receives ")
    remedy = "sysctl -w net.core.rmem_max=8388608 net.core.wmem_max=8388608"
    assert text.endswith(remedy) == ON_LINUX


@pytest.mark.skipif(bool(why_no_batch_calls()), reason=why_no_batch_calls())
@pytest.mark.parametrize("call", ["recvmmsg", "sendmmsg"])
@pytest.mark.anyio
async def test_calls_that_the_system_refuses(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Refused, call, True)
    assert dict(await program.report())[call] == "no: the system refuses it"


@pytest.mark.anyio
async def test_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*args: Any, **options: Any) -> socket.socket:
        raise PermissionError(1, "no sockets here")

    monkeypatch.setattr(program, "open_udp_socket", refuse)
    rows = dict(await program.report())
    assert list(rows) == ROWS
    assert rows["GRO"] == "no: PermissionError: [Errno 1] no sockets here"
    assert rows["buffers"] == rows["IPv6"] == rows["GSO"] == rows["GRO"]


@pytest.mark.anyio
async def test_a_loopback_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(*args: Any, **options: Any) -> SendResult:
        return SendResult(0, [SendFailure(0, OSError(101, "Network is unreachable"))])

    monkeypatch.setattr(program, "send_mmsg", refuse)
    rows = dict(await program.report())
    assert rows["control data"] == "no: OSError: [Errno 101] Network is unreachable"
    assert rows["GRO"] == rows["control data"] or not ON_LINUX


@pytest.mark.anyio
async def test_a_loopback_that_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anyio, "fail_after", lambda delay: fail_after(delay / 1000))

    async def swallow(*args: Any, **options: Any) -> SendResult:
        return SendResult()

    monkeypatch.setattr(program, "send_mmsg", swallow)
    rows = dict(await program.report())
    assert rows["control data"] == "no: what was sent did not come within 5 seconds"


def test_what_is_not_installed() -> None:
    assert program.installed("anyio-mmsg-of-nobody") == "not installed"

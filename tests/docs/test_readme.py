"""README.md and docs/overview.md: their programs run as they stand, but for the ports."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
import runpy
import signal
import socket
import sys
import types
from typing import Any

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint

import anyio_mmsg
from anyio_mmsg import PacketBatch, SendResult, open_udp_socket, recv_mmsg

from ..helpers import Family
from .blocks import (
    ROOT,
    Block,
    as_child,
    as_function,
    blocks,
    client,
    free_port,
    python_blocks,
    runs,
)

README = (ROOT / "README.md").read_text(encoding="utf-8")
OVERVIEW = (ROOT / "docs" / "overview.md").read_text(encoding="utf-8")
FIRST, RECEIVER, ECHO = python_blocks("README.md")
ANSWER, RESULT, TRAINS, NURSERY, VIEWS = python_blocks("docs/overview.md")
(OF_THE_SITE,) = python_blocks("docs/index.md")

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="GRO and control data")


def test_the_first_two_shell_blocks_are_the_commands() -> None:
    """Which .ci/run executes."""
    first, second, *_ = [block.text for block in blocks("README.md") if block.language == "sh"]
    assert first.endswith(".venv/bin/python examples/programs/loopback.py\n")
    assert second.endswith(".venv/bin/python -m pytest\n")


def test_it_is_read_at_once() -> None:
    assert len(README.splitlines()) <= 150


def test_the_first_program_is_short() -> None:
    assert len([line for line in FIRST.text.splitlines() if line]) <= 10


# The programs


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT can't be sent to one process there")
@pytest.mark.parametrize(
    ("block", "run"),
    [
        (FIRST, "anyio.run(main)"),
        (FIRST, "trio.run(main)"),
        (FIRST, "asyncio.run(main())"),
        (FIRST, "uvloop.run(main())"),
        (OF_THE_SITE, "anyio.run(main)"),
    ],
)
def test_the_first_program(block: Block, run: str) -> None:
    library = run.partition(".")[0]
    pytest.importorskip(library)
    *lines, last = block.text.splitlines()
    assert run in last
    port = free_port()
    program = dataclasses.replace(block, text="\n".join([f"import {library}", *lines, run]))
    with (
        as_child(program.replace(9999, port)) as child,
        client(port, child, b"hello") as sender,
    ):
        assert child.stdout is not None
        assert child.stdout.readline() == f"{sender.getsockname()} b'hello'\n"


@runs(RECEIVER)
@pytest.mark.anyio
async def test_a_receiver(inet: Family, capsys: pytest.CaptureFixture[str]) -> None:
    receiver, sender = inet.pair()
    sender.send(b"hello")
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(as_function(RECEIVER, sock=receiver))
            while not (printed := capsys.readouterr().out):
                await checkpoint()
            nursery.cancel_scope.cancel()
            assert printed == f"{sender.getsockname()} b'hello'\n"


@runs(ECHO)
@pytest.mark.anyio
async def test_an_echo_server(inet: Family) -> None:
    server, client = inet.pair()
    answers = PacketBatch(8)
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(as_function(ECHO, sock=server))
            for number in range(3):
                client.send(b"%d" % number)
                await recv_mmsg(client, answers)
                assert bytes(answers[-1].data) == b"%d" % number
            nursery.cancel_scope.cancel()


@runs(ANSWER)
@pytest.mark.anyio
async def test_a_server_that_answers(inet: Family) -> None:
    server, client = inet.pair()
    batch, answers = PacketBatch(8), PacketBatch(8)
    client.send(b"one")
    client.send(b"two")
    with anyio.fail_after(60):
        while len(batch) < 2:
            await recv_mmsg(server, batch)
        names = {"sock": server, "batch": batch, "answer": lambda data: bytes(data).upper()}
        await as_function(ANSWER, **names)()
        while len(answers) < 2:
            await recv_mmsg(client, answers)
    assert answers.payloads() == [b"ONE", b"TWO"]


@runs(RESULT)
@pytest.mark.anyio
async def test_a_send_that_may_be_cancelled(inet: Family) -> None:
    server = inet.open()
    packets = [(b"a", server.getsockname()), (b"b", server.getsockname())]
    client = inet.unbound()
    seen = await as_function(RESULT, sock=client, packets=packets)()
    assert seen["unsent"] == []
    assert seen["result"] == SendResult(2)


def opens_with(opened: list[socket.socket], *packets: bytes) -> Any:
    """Return `open_udp_socket` that opens a free port, where some packets wait already."""

    async def open_one(host: str, port: int, **options: Any) -> socket.socket:
        assert port == 9999
        options.pop("receive_buffer_size", None)  # which may be more than is granted here
        sock = await open_udp_socket("127.0.0.1", 0, **options)
        opened.append(sock)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for packet in packets:
                sender.sendto(packet, sock.getsockname())
        return sock

    return open_one


@needs_linux
@runs(TRAINS)
@pytest.mark.anyio
async def test_trains_and_control_data(capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[socket.socket] = []
    with anyio.fail_after(60):
        await as_function(TRAINS, open_udp_socket=opens_with(opened, b"12345"))()
    opened[0].close()
    timestamp, destination, interface, size = capsys.readouterr().out.split()
    assert int(timestamp) > 0
    assert (destination, int(interface) > 0, size) == ("127.0.0.1", True, "5")


@pytest.mark.skipif(sys.platform == "win32", reason="AnyIO receives no signals there")
@runs(NURSERY)
@pytest.mark.anyio
async def test_receivers_in_a_nursery() -> None:
    opened: list[socket.socket] = []
    handled: list[bytes] = []
    sent = [b"%d" % number for number in range(5)]
    before = signal.getsignal(signal.SIGTERM)
    main = dataclasses.replace(NURSERY, text=NURSERY.text + "\nawait main()\n")
    names = {"handle": lambda packet: handled.append(bytes(packet.data)), "signal": signal}
    with anyio.fail_after(60):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(
                as_function(main, open_udp_socket=opens_with(opened, *sent), **names)
            )
            while len(handled) < len(sent) or signal.getsignal(signal.SIGTERM) == before:
                await checkpoint()
            os.kill(os.getpid(), signal.SIGTERM)
    assert sorted(handled) == sent
    assert opened[0].fileno() == -1


@runs(VIEWS)
@pytest.mark.anyio
async def test_views_that_live_on(inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(1)
    sender.send(b"\0\1\0\2")
    await recv_mmsg(receiver, batch)
    wrong, right = [
        dataclasses.replace(VIEWS, text=f"{line}\n") for line in VIEWS.text.splitlines()
    ]
    shown = (await as_function(wrong, packet=batch[0], numpy=np)())["samples"]
    copied = (await as_function(right, packet=batch[0], numpy=np)())["samples"]
    batch.clear()
    sender.send(b"\0\3\0\4")
    await recv_mmsg(receiver, batch)
    assert (shown.tolist(), copied.tolist()) == ([3, 4], [1, 2])


# What surrounds them


def test_the_long_description_has_no_relative_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index shows it without the files around it."""
    for command in ("", ".command.bdist_wheel", ".command.build_ext", ".command.build_py"):
        module = types.ModuleType(f"setuptools{command}")  # which users lack
        for name in ("Extension", "setup", "bdist_wheel", "build_ext", "build_py"):
            vars(module)[name] = object
        monkeypatch.setitem(sys.modules, module.__name__, module)
    names = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")
    repository = "https://example.org/anyio-mmsg/blob/main"
    text = "![A picture](a/b.svg) [text](docs/c.md) [d.md](d.md) [there](https://example.org/e)"
    assert names["for_an_index"](text, "") == (
        "(Picture: `a/b.svg`. A picture.) text (`docs/c.md`) `d.md` [there](https://example.org/e)"
    )
    assert names["for_an_index"](text, repository) == (
        f"![A picture]({repository}/a/b.svg?raw=true) [text]({repository}/docs/c.md) "
        f"[d.md]({repository}/d.md) [there](https://example.org/e)"
    )
    shown = names["for_an_index"](README)
    assert re.findall(r"\]\((?!https://)[^)]*\)", shown) == []


def test_every_option_that_is_named_exists() -> None:
    """Options that are named in the text, not in a program."""
    options: dict[Any, set[str]] = {
        anyio_mmsg.open_udp_socket: {"ecn", "hop_limits", "dont_fragment", "receive_buffer_size"},
        anyio_mmsg.send_mmsg: {"gso", "reply_from_destination"},
        anyio_mmsg.PacketBatch: {"gro", "ancillary", "slot_size"},
        anyio_mmsg.PacketBatchPool: {"slot_size"},
        anyio_mmsg.feed: {"overload"},
    }
    for function, names in options.items():
        assert names <= set(inspect.signature(function).parameters)
        assert all(f"{name}=" in OVERVIEW for name in names)

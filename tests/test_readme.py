"""README.md: its programs run as they stand but for the ports, and its links lead somewhere."""

from __future__ import annotations

import inspect
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from anyio.lowlevel import checkpoint

import anyio_mmsg
from anyio_mmsg import PacketBatch, SendResult, open_udp_socket, recv_mmsg

from .helpers import Family

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PROGRAMS = re.findall(r"^```python\n(.*?)^```$", README, re.M | re.S)
FIRST, ECHO, ANSWER, RESULT, TRAINS, NURSERY, VIEWS = PROGRAMS

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="GRO and control data")


def as_function(text: str, **names: Any) -> Any:
    """Return an async function that runs a program, and returns its variables."""
    names |= {name: getattr(anyio_mmsg, name) for name in anyio_mmsg.__all__ if name not in names}
    names |= {"anyio": anyio}
    body = textwrap.indent(text, "    ")
    exec(f"async def program():\n{body}    return locals()\n", names)
    return names["program"]


def port_of(program: str, port: int) -> str:
    assert program.count("9999") == 1
    return program.replace("9999", str(port))


def test_the_first_two_shell_blocks_are_the_commands() -> None:
    """Which .ci/run executes."""
    first, second, *_ = re.findall(r"^```sh\n(.*?)^```$", README, re.M | re.S)
    assert first.endswith(".venv/bin/python examples/loopback.py\n")
    assert second.endswith(".venv/bin/python -m pytest\n")


def test_the_first_program_is_short() -> None:
    assert len([line for line in FIRST.splitlines() if line]) <= 10


# The programs


def listens(sender: socket.socket) -> bool:
    """Send a packet; return whether it was not refused."""
    try:
        sender.send(b"hello")
        sender.recv(1)
    except ConnectionRefusedError:
        return False
    except TimeoutError:
        return True
    raise AssertionError("the program sends nothing")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT can't be sent to one process there")
@pytest.mark.parametrize(
    "run", ["anyio.run(main)", "trio.run(main)", "asyncio.run(main())", "uvloop.run(main())"]
)
def test_the_first_program(run: str) -> None:
    library = run.partition(".")[0]
    pytest.importorskip(library)
    *lines, last = FIRST.splitlines()
    assert run in last
    program = "\n".join([f"import {library}", *lines, run])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            address = probe.getsockname()
        sender.connect(address)
        sender.settimeout(0.02)
        child = subprocess.Popen(
            [sys.executable, "-u", "-W", "error", "-c", port_of(program, address[1])],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        with child:
            assert child.stdout is not None
            while child.poll() is None and not listens(sender):
                pass
            line = child.stdout.readline()
            child.send_signal(signal.SIGINT)
        assert line == f"{sender.getsockname()} b'hello'\n"


@pytest.mark.anyio
async def test_an_echo_server(inet: Family) -> None:
    server, client = inet.pair()
    answers = PacketBatch(8)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(as_function(ECHO, sock=server))
            for number in range(3):
                client.send(b"%d" % number)
                await recv_mmsg(client, answers)
                assert bytes(answers[-1].data) == b"%d" % number
            nursery.cancel_scope.cancel()


@pytest.mark.anyio
async def test_a_server_that_answers(inet: Family) -> None:
    server, client = inet.pair()
    batch, answers = PacketBatch(8), PacketBatch(8)
    client.send(b"one")
    client.send(b"two")
    with anyio.fail_after(5):
        while len(batch) < 2:
            await recv_mmsg(server, batch)
        names = {"sock": server, "batch": batch, "answer": lambda data: bytes(data).upper()}
        await as_function(ANSWER, **names)()
        while len(answers) < 2:
            await recv_mmsg(client, answers)
    assert answers.payloads() == [b"ONE", b"TWO"]


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
@pytest.mark.anyio
async def test_trains_and_control_data(capsys: pytest.CaptureFixture[str]) -> None:
    opened: list[socket.socket] = []
    with anyio.fail_after(5):
        await as_function(TRAINS, open_udp_socket=opens_with(opened, b"12345"))()
    opened[0].close()
    timestamp, destination, interface, size = capsys.readouterr().out.split()
    assert int(timestamp) > 0
    assert (destination, int(interface) > 0, size) == ("127.0.0.1", True, "5")


@pytest.mark.skipif(sys.platform == "win32", reason="AnyIO receives no signals there")
@pytest.mark.anyio
async def test_receivers_in_a_nursery() -> None:
    opened: list[socket.socket] = []
    handled: list[bytes] = []
    sent = [b"%d" % number for number in range(5)]
    before = signal.getsignal(signal.SIGTERM)
    main = NURSERY + "\nawait main()\n"
    names = {"handle": lambda packet: handled.append(bytes(packet.data)), "signal": signal}
    with anyio.fail_after(5):
        async with anyio.create_task_group() as nursery:
            nursery.start_soon(
                as_function(main, open_udp_socket=opens_with(opened, *sent), **names)
            )
            while len(handled) < len(sent) or signal.getsignal(signal.SIGTERM) == before:
                await checkpoint()
            os.kill(os.getpid(), signal.SIGTERM)
    assert sorted(handled) == sent
    assert opened[0].fileno() == -1


@pytest.mark.anyio
async def test_views_that_live_on(inet: Family) -> None:
    receiver, sender = inet.pair()
    batch = PacketBatch(1)
    sender.send(b"\0\1\0\2")
    await recv_mmsg(receiver, batch)
    wrong, right = VIEWS.splitlines()
    shown = (await as_function(f"{wrong}\n", packet=batch[0], numpy=np)())["samples"]
    copied = (await as_function(f"{right}\n", packet=batch[0], numpy=np)())["samples"]
    batch.clear()
    sender.send(b"\0\3\0\4")
    await recv_mmsg(receiver, batch)
    assert (shown.tolist(), copied.tolist()) == ([3, 4], [1, 2])


# What surrounds them


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\((?![a-z]+:)([^)#]*)", text):
        assert (page.parent / target).exists(), target


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.stem != "performance"], ids=lambda page: page.name
)
def test_files_that_are_named_exist(page: Path) -> None:
    named = re.findall(
        r"\b(?:src|tests|docs|examples|benchmarks|\.ci)/[\w./]*\w",
        page.read_text(encoding="utf-8"),
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_long_description_has_no_relative_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index shows it without the files around it."""
    setuptools = types.ModuleType("setuptools")
    vars(setuptools)["setup"] = None
    monkeypatch.setitem(sys.modules, "setuptools", setuptools)
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_compile(page: Path) -> None:
    for text in re.findall(
        r"^ *```python\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.M | re.S
    ):
        compile(
            f"async def f():\n{textwrap.indent(textwrap.dedent(text), ' ')}", page.name, "exec"
        )


def test_the_house_is_drawn_as_it_is() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree = re.search(r"^```\nsrc/anyio_mmsg/\n(.*?)^```$", text, re.M | re.S)
    assert tree is not None
    drawn: set[str] = set()
    folder = ""
    for line in tree[1].splitlines():
        name = line.split()[0]
        if line.startswith("   "):
            drawn.add(folder + name)
        elif name.endswith("/"):
            folder = name
        else:
            drawn.add(name)
    source = ROOT / "src" / "anyio_mmsg"
    there = {
        str(path.relative_to(source).as_posix())
        for kind in ("*.py", "*.c", "*.h", "*.pyi")
        for path in source.rglob(kind)
    }
    assert drawn == {name for name in there if not name.endswith("/__init__.py")}


def test_every_option_that_is_named_exists() -> None:
    """Options that the README names in its text, not in a program."""
    options: dict[Any, set[str]] = {
        anyio_mmsg.open_udp_socket: {"ecn", "hop_limits", "dont_fragment", "receive_buffer_size"},
        anyio_mmsg.send_mmsg: {"gso", "reply_from_destination"},
        anyio_mmsg.PacketBatch: {"gro", "ancillary", "slot_size"},
        anyio_mmsg.PacketBatchPool: {"slot_size"},
        anyio_mmsg.feed: {"overload"},
    }
    for function, names in options.items():
        assert names <= set(inspect.signature(function).parameters)
        assert all(f"{name}=" in README for name in names)

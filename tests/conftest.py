"""What every test is run over: backends, engines, address families."""

from __future__ import annotations

import faulthandler
import os
import signal
import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

from anyio_mmsg import ReceiveEngine, SendEngine
from anyio_mmsg._system.platform import why_no_batch_calls

# What helpers assert is then checked under `python -O` too, as what tests assert is.
pytest.register_assert_rewrite(
    *(
        f"tests.{path.stem}"
        for path in Path(__file__).parent.glob("[a-z]*")
        if path != Path(__file__)
    )
)

from .helpers import Family, have_ipv6, without_trio, without_uvloop  # noqa: E402

# A test that waits longer has lost what it waits for. Threads and processes end with it.
SECONDS = float(os.environ.get("ANYIO_MMSG_TEST_SECONDS", "600"))
_errors = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the real stderr, which pytest replaces while a test runs, and heed SIGINT.

    A shell's background job ignores it, and so would each program that a test starts.
    """
    config.stash[_errors] = os.dup(2)
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """End the run with a traceback of each thread if a test never ends."""
    faulthandler.dump_traceback_later(SECONDS, exit=True, file=item.config.stash[_errors])
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of docs without one of the event loops that programs in docs run on."""
    for item in items:
        if Path(__file__).parent / "docs" in item.path.parents:
            item.add_marker(without_trio)
            item.add_marker(without_uvloop)


@pytest.fixture(
    params=[
        pytest.param(("asyncio", {"debug": True}), id="asyncio"),
        pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop", marks=without_uvloop),
        pytest.param(("trio", {}), id="trio", marks=without_trio),
    ]
)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


def _of_linux(call: str) -> Any:
    why_not = why_no_batch_calls()
    return pytest.param(call, marks=pytest.mark.skipif(bool(why_not), reason=f"{call} {why_not}"))


@pytest.fixture(params=["recvfrom_into", _of_linux("recvmmsg")])
def engine(request: pytest.FixtureRequest) -> ReceiveEngine:
    """The engine to receive by."""
    engine: ReceiveEngine = request.param
    return engine


@pytest.fixture(params=["sendto", _of_linux("sendmmsg")])
def sending(request: pytest.FixtureRequest) -> SendEngine:
    """The engine to send by."""
    engine: SendEngine = request.param
    return engine


@pytest.fixture(
    params=[
        "inet",
        pytest.param(
            "inet6", marks=pytest.mark.skipif(not have_ipv6(), reason="::1 can't be bound here")
        ),
        pytest.param(
            "unix",
            marks=pytest.mark.skipif(
                not hasattr(socket, "AF_UNIX"), reason="no unix sockets on this platform"
            ),
        ),
    ]
)
def family(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Family]:
    with Family(request.param, tmp_path_factory.mktemp("s")) as family:
        yield family


@pytest.fixture
def inet() -> Iterator[Family]:
    """For tests to which the family makes no difference."""
    with Family("inet", None) as family:
        yield family

"""CPython's own tests of datagram endpoints, with loops of `batched_loop_factory`.

`python -m tests.protocol.cpython asyncio` runs them where CPython has its tests installed; with
`uvloop` those that do not put mocks into asyncio's modules.
"""

from __future__ import annotations

import asyncio
import importlib
import sys
import unittest
from typing import Any

from anyio_mmsg import batched_loop_factory

_OF_ASYNCIO = (
    "addr_error cant_bind connect_err ip_addr no_addrinfo nosoreuseport reuse_address_warning "
    "setblk_err socket_err wrong_sock"
)
"""These look into asyncio itself, or for its words."""


def suite(backend: str) -> unittest.TestSuite:
    """Return the tests whose names say that they are of datagrams."""
    events: Any = importlib.import_module("test.test_asyncio.test_events")
    base_events: Any = importlib.import_module("test.test_asyncio.test_base_events")
    utils: Any = importlib.import_module("test.test_asyncio.utils")
    base: Any = asyncio.SelectorEventLoop
    if backend == "uvloop":
        base = importlib.import_module("uvloop").Loop
        utils.TestCase.close_loop = staticmethod(lambda loop: loop.close())  # looks into it
    factory = batched_loop_factory(base)

    class Events(events.EventLoopTestsMixin, utils.TestCase):  # type: ignore[misc]
        def create_event_loop(self) -> asyncio.AbstractEventLoop:
            return factory()

    class Endpoints(base_events.BaseEventLoopWithSelectorTests):  # type: ignore[misc]
        def setUp(self) -> None:
            super().setUp()
            self.loop.close()  # what the tests have made
            self.loop: Any = factory()
            self.set_event_loop(self.loop)

    left_out = {f"test_create_datagram_endpoint_{name}" for name in _OF_ASYNCIO.split()}
    tests = unittest.TestSuite()
    for case in (Events, Endpoints):
        for name in unittest.TestLoader().getTestCaseNames(case):
            if "datagram" in name and not (backend == "uvloop" and name in left_out):
                tests.addTest(case(name))
    return tests


if __name__ == "__main__":
    result = unittest.TextTestRunner().run(suite(sys.argv[1]))
    sys.exit(not result.wasSuccessful())

"""Threads, forks and other interpreters: refused with a sentence where it would do harm."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import anyio
import pytest

from anyio_mmsg import BatchFullError, PacketBatch, ReceiveEngine, recv_mmsg_nowait
from anyio_mmsg._packets import compiled
from anyio_mmsg._system.platform import why_no_batch_calls

from .world import World, sockets


def run_all(*targets: Callable[[], None]) -> None:
    """Run each in a thread; raise what one of them raised."""
    failures: list[BaseException] = []

    def run(target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(target,)) for target in targets]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    finally:
        sys.setswitchinterval(before)
    assert not any(thread.is_alive() for thread in threads)
    if failures:
        raise failures[0]


REFUSED = (RuntimeError, anyio.BusyResourceError)


def test_two_threads_fill_one_batch(trust_rounds: int) -> None:
    """One at a time does; the other is told. No packet is lost, or written over.

    Compiled: in plain Python nothing guards each bytecode of a second thread.
    """
    if why_no_batch_calls():
        pytest.skip(f"recvmmsg {why_no_batch_calls()}")
    with sockets() as found:
        world = World(found, "recvmmsg", 8)
        refused: list[str] = []

        def fill() -> None:
            for _ in range(400 * trust_rounds):
                try:
                    recv_mmsg_nowait(found.receiver, world.batch, 3)
                except (anyio.WouldBlock, BatchFullError):
                    pass
                except REFUSED as error:
                    refused.append(str(error))

        for _ in range(5):
            world.send(20)
            run_all(fill, fill, fill)
            world.check()
            world.batch.clear()
            world.finish()
        assert all("receiving into" in sentence for sentence in refused)


def test_a_thread_closes_while_another_fills(engine: ReceiveEngine, trust_rounds: int) -> None:
    """Closing comes before or after a fill, or is refused.

    A receive that had begun may still put packets into the closed batch, where they go the way
    of those that it held.
    """
    with sockets() as found:
        for _ in range(60 * trust_rounds):
            world = World(found, engine, 8)
            world.send(6)
            outcome: list[int] = []

            def fill(world: World = world, outcome: list[int] = outcome) -> None:
                for _ in range(6):
                    try:
                        outcome.append(recv_mmsg_nowait(found.receiver, world.batch, 1))
                    except (ValueError, anyio.WouldBlock, *REFUSED):
                        return

            def close(world: World = world) -> None:
                for _ in range(50):
                    try:
                        world.batch.close()
                    except ValueError as error:
                        assert "receiving into" in str(error) or "closed" in str(error)  # noqa: PT017

            run_all(fill, close)
            if not world.batch.closed:
                world.check()


def test_a_thread_reads_while_another_fills(engine: ReceiveEngine, trust_rounds: int) -> None:
    """Not recommended, but it must not crash, and shows no packet's bytes under another's name."""
    with sockets() as found:
        world = World(found, engine, 8)
        done = threading.Event()

        def fill() -> None:
            try:
                for _ in range(300 * trust_rounds):
                    world.send(2)
                    world.receive_if_possible()
                    if len(world.batch) > 5:
                        world.batch.release(3)
            finally:
                done.set()

        def read() -> None:
            while not done.is_set():
                try:
                    for packet in world.batch:
                        text = bytes(packet.data).split(b"|")[0]
                        address = packet.address
                        sender = int(text.rsplit(b" ", 1)[1])
                        assert address == found.names[sender]
                except (ValueError, IndexError) as error:
                    assert "released" in str(error) or "packets" in str(error)  # noqa: PT017

        if not compiled:
            fill()  # plain Python promises nothing for two threads that use one batch
        else:
            run_all(fill, read)
        world.finish()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_forks_with_packets_held(engine: ReceiveEngine) -> None:
    """Each process has its copy of the ring, and its packets; one socket serves both."""
    with sockets() as found:
        world = World(found, engine)
        world.send(4)
        world.receive(4)
        world.check(keep=True)
        world.batch.release(2)
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:  # no pytest in here
                try:
                    world.check()
                    world.batch.clear()
                    world.check_kept()
                    world.batch.close()
                    os._exit(0)
                except BaseException:
                    os._exit(1)
            children.append(child)
        for child in children:
            _, status = os.waitpid(child, 0)
            assert os.waitstatus_to_exitcode(status) == 0
        world.finish()


INTERPRETERS = """
    import sys
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters

    work = '''
    import sys
    sys.path[:] = {path!r}
    import socket
    from anyio_mmsg import PacketBatch, recv_mmsg_nowait
    from anyio_mmsg._packets import compiled
    assert compiled == {compiled!r}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        for engine in {engines!r}:
            batch = PacketBatch(8, engine=engine)
            for number in range(100):
                sock.sendto(b"%d" % number, sock.getsockname())
                assert recv_mmsg_nowait(sock, batch) == 1
                packet = batch[0]
                assert (bytes(packet.data), packet.address) == (b"%d" % number, sock.getsockname())
                batch.release()
            sock.sendto(b"held at the end", sock.getsockname())
            recv_mmsg_nowait(sock, batch)
            kept = list(batch), batch[0].address
    '''
    import textwrap
    for number in range(4):
        name = interpreters.create()
        failure = interpreters.run_string(name, textwrap.dedent(work))
        assert failure is None, failure
        if number != 2:
            interpreters.destroy(name)
    exec(textwrap.dedent(work))
    print("done")
"""


def test_other_interpreters() -> None:
    """Each has types and caches of its own; they may end in any order."""
    try:
        __import__("_interpreters" if sys.version_info >= (3, 13) else "_xxsubinterpreters")
    except ImportError:
        pytest.skip("this Python has no module for other interpreters")
    if sys.version_info[:2] == (3, 12):
        pytest.skip(
            "CPython 3.12 crashes when it ends after such interpreters, in plain Python too"
        )
    program = INTERPRETERS.format(
        path=sys.path,
        compiled=compiled,
        engines=["recvfrom_into", "recvmmsg"] if compiled else ["recvfrom_into"],
    )
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(program)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_a_batch_made_here_and_used_there(engine: ReceiveEngine) -> None:
    """A batch belongs to no thread, as long as one at a time uses it."""
    with sockets() as found:
        world = World(found, engine)
        for _ in range(5):
            run_all(world.finish)
        world.finish()


def test_batches_of_many_threads(engine: ReceiveEngine, trust_rounds: int) -> None:
    """What they share (the remembered senders, the caches of addresses) bears it."""

    def use() -> None:
        with sockets() as found:
            for _ in range(10 * trust_rounds):
                World(found, engine).finish()

    run_all(*[use] * 6)
    assert PacketBatch(engine=engine).free == 64

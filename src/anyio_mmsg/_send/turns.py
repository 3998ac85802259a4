"""The turns of the tasks that wait for room in one socket's buffer."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from weakref import WeakKeyDictionary, ref

import anyio
from anyio import ClosedResourceError
from anyio.lowlevel import RunVar

from .._compat import wait_socket_writable
from .._receive.outlook import inode_of
from .result import UNUSABLE, Progress, UnusableSocketError, result_of


class _Turns:
    """Serialises the tasks that wait to write to one socket: an event loop lets one do so.

    Attributes:
        holder: Whose turn it is: a weak reference to an object that lives as long as that wait,
            so that an interrupt can't leave the turn taken.
        ended: Is set when that turn ends.
        over: Whether the socket is about to be closed.
        inode: The socket's. The object may become another socket, by ``sock.__init__()``.
    """

    def __init__(self, inode: int) -> None:
        self.holder: Callable[[], object] = _nobody
        self.ended = anyio.Event()
        self.over = False
        self.inode = inode


class _Turn:
    __slots__ = ("__weakref__",)


def _nobody() -> None:
    return None


# In each event loop. Entries go with their sockets.
_turns: RunVar[WeakKeyDictionary[socket.socket, _Turns]] = RunVar("anyio_mmsg_turns")


def _turns_of(sock: socket.socket) -> _Turns:
    try:
        every = _turns.get()
    except LookupError:
        every = WeakKeyDictionary()
        _turns.set(every)
    turns, inode = every.get(sock), inode_of(sock)
    if turns is None or turns.over or turns.inode != inode:
        turns = every[sock] = _Turns(inode)
    return turns


async def until_writable(sock: socket.socket, progress: Progress) -> None:
    """Wait until there may be room, when it is this task's turn.

    Raises:
        UnusableSocketError: The socket is closed; with a result of `progress`.
        anyio.BusyResourceError: Something else waits for the socket to be writable.
        OSError: The system does not let the event loop wait for the socket.
    """
    turns = _turns_of(sock)
    while turns.holder() is not None:
        await turns.ended.wait()
    turns.ended.set()  # wakes tasks that an interrupted holder left asleep
    # The last holder may have found the socket closed; then the next one must not wait.
    closed = turns.over or sock.fileno() < 0
    if not closed:
        turns.ended = anyio.Event()
        try:
            await _wait_in_turn(sock, turns)
        except ClosedResourceError:
            turns.over = closed = True
        except (OSError, ValueError) as error:
            closed = sock.fileno() < 0 or getattr(error, "errno", None) in UNUSABLE
            if not closed:
                raise
        finally:
            turns.holder = _nobody
            turns.ended.set()
    if closed:
        raise UnusableSocketError(errno.EBADF, "the socket is closed", result_of(progress))


async def _wait_in_turn(sock: socket.socket, turns: _Turns) -> None:
    # `turn` is a local of this coroutine, so it ends with it, whatever becomes of the caller.
    turn = _Turn()
    turns.holder = ref(turn)
    await wait_socket_writable(sock)

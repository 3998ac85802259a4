"""How the examples are stopped: by signals, without a loss, and at once if need be."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import anyio
from anyio.abc import TaskStatus


async def stop_on_signal(
    stop: Callable[[], object],
    stop_at_once: Callable[[], object],
    *,
    task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Call `stop` at the first Ctrl-C or SIGTERM, and `stop_at_once` at the second.

    Start it with ``await nursery.start(...)``: from then on the signals are handled here. `stop`
    is usually `PacketReceiver.stop`, which lets the program finish what has arrived, and
    `stop_at_once` the nursery's ``cancel_scope.cancel``, for a user who can't wait that long. A
    second signal that is already pending counts too. On Windows, where asyncio can't handle
    signals, this does nothing, and Ctrl-C raises KeyboardInterrupt.
    """
    if sys.platform == "win32":
        task_status.started()
        return
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        await anext(signals)
        stop()
        await anext(signals)
        stop_at_once()

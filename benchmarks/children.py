"""The parent's side of the processes: starting, asking, ending."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any

from .receivers import SPECS, Spec

HERE = Path(__file__).parent

PATIENCE = 60.0
"""Seconds after which a child that does not answer is killed. Each child has deadlines of its
own, far shorter; this one is against a bug."""

FAREWELL = 5.0  # seconds in which a child has to end with its input


class Child:
    """A process that answers a line with a line.

    Args:
        command: What to run.
        environment: Variables to set beyond the parent's.
        core: The one to run on, so that no move to another one's caches counts; None for any.

    Raises:
        RuntimeError: From each method: the child ended, or was killed as it did not answer.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], core: int | None
    ) -> None:
        self.command = command
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
            env={**os.environ, **environment},
        )
        self.move(core)

    def move(self, core: int | None) -> None:
        """Let it run on one core only, if the platform can."""
        if core is not None and sys.platform == "linux":
            os.sched_setaffinity(self.process.pid, {core})

    def send(self, *words: object) -> None:
        """Send a command."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(" ".join(map(str, words)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise RuntimeError(f"{self.command} has ended") from None

    def hear(self) -> dict[str, Any]:
        """Wait for an answer."""
        assert self.process.stdout is not None
        watchdog = Timer(PATIENCE, self.process.kill)
        watchdog.start()
        try:
            line = self.process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            raise RuntimeError(f"{self.command} has ended, status {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, *words: object) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.send(*words)
        return self.hear()

    def end(self) -> None:
        """End the child by ending its input; do not wait for it."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def close(self) -> None:
        """End the child, and wait until it has."""
        assert self.process.stdout is not None
        self.end()
        try:
            self.process.wait(FAREWELL)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module of this package."""
    warnings = [f"-W{option}" for option in sys.warnoptions]
    return [sys.executable, *warnings, "-m", f"{__package__}.{module}", *arguments]


def compile_floor(directory: Path) -> Path | None:
    """Compile floor.c; return the program, or None where there is no compiler or no recvmmsg."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        return None
    program = directory / "floor"
    command = [compiler, "-O2", "-o", str(program), str(HERE / "floor.c")]
    done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        print(f"no floor: the compiler said: {done.stderr}", file=sys.stderr)
        return None
    return program


def missing(spec: Spec) -> str | None:
    """Return why a receiver can't run here, or None."""
    if spec.loop and spec.loop != "asyncio" and find_spec(spec.loop) is None:
        return f"{spec.loop} is not installed"
    if spec.key == "sock-asyncio" and sys.version_info < (3, 11):
        return "sock_recvfrom_into came with Python 3.11"
    if spec.kind == "ours" and "recvmmsg" in spec.key and sys.platform != "linux":
        return "recvmmsg(2) is Linux's"
    return None


class Children:
    """The receivers' processes, each started when it is first asked for, and the sender's.

    A context manager: all end with it.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._receivers: dict[str, Child] = {}
        self._ports: dict[str, int] = {}
        self._children: list[Child] = []
        self._sender: Child | None = None
        cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        # Receivers, of which one is busy at a time, share one core, the sender has the other.
        self._core: int | None = cores[-1] if len(cores) > 1 else None
        self._sender_core: int | None = cores[-2] if len(cores) > 1 else None
        self.floor: Path | None = None

    def __enter__(self) -> Children:
        directory = self._stack.enter_context(tempfile.TemporaryDirectory())
        self.floor = compile_floor(Path(directory))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for child in self._children:
            child.end()
        self._stack.close()

    def available(self, specs: Iterable[Spec]) -> list[Spec]:
        """Return those that can run here."""
        return [
            spec
            for spec in specs
            if (self.floor if spec.kind == "floor" else missing(spec) is None)
        ]

    def start(self, specs: Iterable[Spec], buffer: int) -> int:
        """Have these receivers run, with receive buffers of `buffer` bytes, or as near as can be.

        Returns:
            The smallest buffer that was granted, as SO_RCVBUF tells.
        """
        keys = [spec.key for spec in specs]
        new = [key for key in keys if key not in self._receivers]
        for key in new:  # all start at once, and are heard then
            self._receivers[key] = self.spawn(SPECS[key])
        for key in new:
            self._ports[key] = self._receivers[key].hear()["port"]
        return min(int(self[key].ask("buffer", buffer)["granted"]) for key in keys)

    def spawn(self, spec: Spec, anywhere: bool = False) -> Child:
        """Start a receiver's process; it greets with its port.

        Args:
            spec: Which.
            anywhere: Let it run on any core, where time does not matter.
        """
        core = None if anywhere else self._core
        return self._adopt(Child(self._command(spec), spec.environment, core))

    def _adopt(self, child: Child) -> Child:
        self._stack.callback(child.close)
        self._children.append(child)
        return child

    def _command(self, spec: Spec) -> list[str]:
        if spec.kind == "floor":
            assert self.floor is not None
            return [str(self.floor), str(spec.limit)]
        return python("worker", spec.key)

    def __getitem__(self, key: str) -> Child:
        """Return a receiver that was started."""
        return self._receivers[key]

    def port(self, key: str) -> int:
        """Return the UDP port of a receiver that was started."""
        return self._ports[key]

    def share_core(self, share: bool) -> None:
        """Have the sender run on the receivers' core, or on its own again."""
        self.sender.move(self._core if share else self._sender_core)

    @property
    def sender(self) -> Child:
        """The process that sends to receivers (`sender`), started when it is first asked for."""
        if self._sender is None:
            self._sender = self._adopt(Child(python("sender"), {}, self._sender_core))
            self._sender.hear()
        return self._sender

"""The parent's side of the processes: starting, asking, ending."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from threading import Timer
from types import TracebackType
from typing import Any

from .spec import AnySpec

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
        pin(self.process.pid, core)

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


def pin(process: int, core: int | None) -> None:
    """Let a process run on one core only, if there is one and the platform can."""
    if core is not None and sys.platform == "linux":
        os.sched_setaffinity(process, {core})


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a worker."""
    warnings = [f"-W{option}" for option in sys.warnoptions]
    return [sys.executable, *warnings, "-m", f"{__package__}.workers.{module}", *arguments]


def compile_floors(directory: Path) -> dict[str, Path]:
    """Compile the C files; return the programs, none without a compiler or Linux."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        return {}
    programs = {}
    for source in (HERE / "floors").glob("*.c"):
        program = directory / source.stem
        command = [compiler, "-O2", "-o", str(program), str(source)]
        done = subprocess.run(command, check=False, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            print(f"no floor {source.stem}: the compiler said: {done.stderr}", file=sys.stderr)
        else:
            programs[source.stem] = program
    return programs


class Children:
    """The candidates' processes, each started when it is first asked for, and the load's.

    A context manager: all end with it.

    Attributes:
        cores: That they may run on.
        floors: The C programs, by name.
        missing: Why candidates that can't run here are left out, by key.
        granted: The smallest buffer that `start` was granted, as SO_RCVBUF reports it.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._candidates: dict[str, Child] = {}
        self._ports: dict[str, int] = {}
        self._children: list[Child] = []
        self._load: Child | None = None
        cores = sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []
        # Candidates, of which one is busy at a time, share one core, the load has the other.
        self._core: int | None = cores[-1] if len(cores) > 1 else None
        self._load_core: int | None = cores[-2] if len(cores) > 1 else None
        self.cores = len(cores) or os.cpu_count() or 1
        self.floors: dict[str, Path] = {}
        self.missing: dict[str, str] = {}
        self.granted = 0

    def __enter__(self) -> Children:
        directory = self._stack.enter_context(tempfile.TemporaryDirectory())
        self.floors = compile_floors(Path(directory))
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

    def lacks(self, spec: AnySpec) -> str | None:
        """Return why a candidate can't be started here, or None."""
        if spec.kind == "floor":
            return None if spec.worker in self.floors else "C floors need Linux and a compiler"
        for module in spec.modules:
            if find_spec(module) is None:
                return f"{module} is not installed"
        return None

    def start(self, specs: Iterable[AnySpec], buffer: int) -> list[AnySpec]:
        """Have candidates run, with socket buffers of `buffer` bytes, or as near as can be.

        A candidate that can't be measured here is left out: `missing` says why.

        Returns:
            Those that run.
        """
        specs = list(specs)
        new = [spec for spec in specs if spec.key not in self._candidates.keys() | self.missing]
        for spec in list(new):  # all start at once, and are heard then
            reason = self.lacks(spec)
            if reason is None:
                self._candidates[spec.key] = self.spawn(spec)
            else:
                self.missing[spec.key] = reason
                new.remove(spec)
        for spec in new:
            greeting = self[spec.key].hear()
            if reason := greeting.get("missing"):
                self.missing[spec.key] = reason
                self._candidates.pop(spec.key).close()
            else:
                self._ports[spec.key] = greeting.get("port", 0)
                if "load" in greeting:  # it has one of its own
                    pin(greeting["load"], self._load_core)
        running = [spec for spec in specs if spec.key in self._candidates]
        for spec in running:
            granted = int(self[spec.key].ask("buffer", buffer)["granted"])
            self.granted = min(granted, self.granted) if spec is not running[0] else granted
        return running

    def left_out(self, specs: Iterable[AnySpec]) -> dict[str, list[str]]:
        """Return what was left out of these, by reason."""
        reasons: dict[str, list[str]] = {}
        for spec in specs:
            if spec.key in self.missing:
                name = f"{spec.label}, {spec.loop}" if spec.loop else spec.label
                reasons.setdefault(self.missing[spec.key], []).append(name)
        return reasons

    def spawn(self, spec: AnySpec, *, anywhere: bool = False) -> Child:
        """Start a candidate's process; it greets.

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

    def _command(self, spec: AnySpec) -> list[str]:
        if spec.kind == "floor":
            return [str(self.floors[spec.worker]), *spec.arguments]
        return python(spec.worker, spec.key)

    def __getitem__(self, key: str) -> Child:
        """Return a candidate that was started."""
        return self._candidates[key]

    def port(self, key: str) -> int:
        """Return the UDP port of a candidate that was started."""
        return self._ports[key]

    def share_core(self, share: bool) -> None:
        """Have the load run on the candidates' core, or on its own again."""
        self.load.move(self._core if share else self._load_core)

    def take_core(self, process: int) -> None:
        """Have a process that somebody else started run on the candidates' core."""
        pin(process, self._core)

    def helper(self, module: str) -> Child:
        """Start a worker on the load's core, and hear its greeting."""
        child = self._adopt(Child(python(module), {}, self._load_core))
        child.hear()
        return child

    @contextmanager
    def other_cores(self) -> Iterator[None]:
        """Have what is started meanwhile run on all cores but that of the candidates."""
        if self._core is None or sys.platform != "linux":
            yield
            return
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, cores - {self._core})
        try:
            yield
        finally:
            os.sched_setaffinity(0, cores)

    @property
    def load(self) -> Child:
        """The process that puts load on others (`workers.load`), started when first asked for."""
        if self._load is None:
            self._load = self._adopt(Child(python("load"), {}, self._load_core))
            self._load.hear()
        return self._load

"""Search for bytes that break what parses bytes, guided by coverage of Python and C.

    python -m tests.trust.fuzz                        # each target for a minute
    python -m tests.trust.fuzz dns receive --seconds 600
    python -m tests.trust.fuzz dns --repeat 0012ff    # one input, in hexadecimal digits

Needs atheris (``python -m pip install atheris``). The targets that C is a part of, trains and
receive, also need clang with its sanitizers (on Debian ``apt-get install clang libclang-rt-dev``):
the compiled module is built into a folder of its own, with AddressSanitizer and
UndefinedBehaviorSanitizer, and runs beside plain Python. ``ANYIO_MMSG_COMPILED=0`` leaves it out.
A finding is printed with the command that repeats it.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ..sanitize import build
from . import CORPUS, corpus, load, rings
from .engine import TARGET
from .kernel import before_libc

ROOT = Path(__file__).parent.parent.parent.parent
LONGEST = 600  # bytes of an input; arbitrary: all that the targets tell apart fits
SLOWEST = 10  # seconds that one input may take
MOST_KEPT = 8_000  # hexadecimal digits of a target's corpus in the tests, beside those by hand
GENERATED = "# By the fuzzer: what covers more\n"

# Words that branches do not lead to, since regular expressions are not instrumented.
WORDS: dict[str, list[bytes]] = {
    "syslog": b'<13> |<13>1 |- |2024-01-02T03:04:05Z |Oct  1 10:00:00 |[a b="|"]|\\\\"'.split(
        b"|"
    ),
    "statsd": rb"a:1|c.|g.|ms.:a|s.|@0.1.|#a,b:c.|T1.|c:x.:+1|g.1e300.e-320.|.:".split(b"."),
    "dns": [bytes(4), b"\7example\3org", b"\3www", b"\4many", b"\3dyn", b"\5child", b"\xc0\x0c"],
    "latency": [b"lat1"],
    "address": b"127.0.0.1 ::1 fe80::1%1 %lo ::ffff:1.2.3.4".split(),
}


def why_not(targets: list[str]) -> str:
    """Return what is missing, "" if nothing is."""
    if sys.platform != "linux":
        return "this is for Linux"
    if importlib.util.find_spec("atheris") is None:
        return "atheris is not installed: python -m pip install atheris"
    if any(map(has_c, targets)) and clang() is None:
        return (
            "clang is not installed: apt-get install clang libclang-rt-dev, or set CC to its "
            "name; ANYIO_MMSG_COMPILED=0 leaves the compiled module out"
        )
    return ""


def has_c(target: str) -> bool:
    """Return whether a target is to run the compiled module too."""
    return target in rings.TARGETS and os.environ.get("ANYIO_MMSG_COMPILED") != "0"


def clang() -> str | None:
    """Return the name of clang."""
    names = [
        os.environ.get("CC", ""),
        "clang",
        *(f"clang-{number}" for number in range(30, 11, -1)),
    ]
    return next((name for name in names if "clang" in name and shutil.which(name)), None)


def build_compiled(folder: Path) -> dict[str, str]:
    """Build the compiled module, and what it runs on, in `folder`; return the environment."""
    package = folder / "anyio_mmsg"
    ignored = shutil.ignore_patterns("*.so", "*.pyc")
    shutil.copytree(ROOT / "src" / "anyio_mmsg", package, ignore=ignored)
    os.environ["CC"] = str(clang())
    flags = ["-fsanitize=address,undefined,fuzzer-no-link", "-fno-sanitize-recover=all"]
    build(package, package / "_compiled.so", *flags)
    atheris = importlib.util.find_spec("atheris")
    assert atheris is not None
    sanitizer = Path(str(atheris.origin)).parent.parent / "asan_with_fuzzer.so"
    variables = before_libc(str(folder))
    return variables | {
        "LD_PRELOAD": f"{variables['LD_PRELOAD']} {sanitizer}",
        # 1 terabyte asked for has to fail; CPython leaves much behind at its end.
        "ASAN_OPTIONS": f"{variables['ASAN_OPTIONS']}:detect_leaks=0:allocator_may_return_null=1",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), *sys.path[1:]]),
    }


def write(inputs: list[bytes], folder: Path) -> None:
    """Write inputs as files."""
    folder.mkdir(parents=True, exist_ok=True)
    for data in inputs:
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)


class Fuzzer:
    """What runs libFuzzer."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "engine"  # libFuzzer starts it by its name
        run = f'exec "{sys.executable}" -m tests.trust.fuzz.engine "$0" "$@"'
        self.script.write_text(f"#!/bin/sh\n{run}\n")
        self.script.chmod(0o755)

    @functools.cached_property
    def compiled(self) -> dict[str, str]:
        """The environment of a target that C is a part of."""
        return build_compiled(self.folder / "package")

    def run(self, target: str, *options: object) -> int:
        """Run it; return its exit status."""
        command = [str(self.script), *map(str, options)]
        path = os.pathsep.join([str(ROOT / "src"), str(ROOT), *sys.path[1:]])
        plain = {**os.environ, "PYTHONPATH": path, "ANYIO_MMSG_COMPILED": "0"}
        variables = {**(self.compiled if has_c(target) else plain), TARGET: target}
        return subprocess.run(command, env=variables, cwd=ROOT, check=False).returncode

    def search(self, target: str, inputs: Path, limit: str) -> bool:
        """Search from `inputs` on, which get what is new; return whether nothing was found."""
        found = self.folder / "found"
        found.mkdir()
        write(list(corpus(target)), inputs)
        bounds = [f"-max_len={LONGEST}", f"-timeout={SLOWEST}", "-rss_limit_mb=4096"]
        if target in WORDS:
            words = self.folder / "words"
            quoted = ("".join(f"\\x{byte:02x}" for byte in word) for word in WORDS[target])
            words.write_text("".join(f'"{word}"\n' for word in quoted))
            bounds.append(f"-dict={words}")
        status = self.run(
            target, inputs, limit, *bounds, f"-artifact_prefix={found}/", "-print_final_stats=1"
        )
        for file in found.iterdir():
            print(f"\n{file.name}: {file.read_bytes()!r}")
            print(f"repeat with: python -m tests.trust.fuzz {target} --repeat {hexadecimal(file)}")
        shutil.rmtree(found)
        return status == 0

    def minimise(self, target: str, inputs: Path) -> None:
        """Leave the inputs that together cover what all cover: the small ones first."""
        fewer = self.folder / "fewer"
        fewer.mkdir()
        # By branches that were taken, not by how often.
        if self.run(target, "-merge=1", "-use_counters=0", fewer, inputs) == 0:
            shutil.rmtree(inputs)
            shutil.copytree(fewer, inputs)
        shutil.rmtree(fewer)


def hexadecimal(file: Path) -> str:
    return file.read_bytes().hex()


def save(target: str, inputs: Path) -> None:
    """Write a target's corpus into the tests, below what was written by hand."""
    path = CORPUS / f"{target}.txt"
    by_hand = (path.read_text() if path.exists() else "").partition(GENERATED)[0]
    known = by_hand.splitlines()
    found = sorted(map(hexadecimal, inputs.iterdir()), key=lambda line: (len(line), line))
    lines = [line for line in found if line and line not in known]
    while lines and sum(map(len, lines)) > MOST_KEPT:
        lines.pop()
    path.write_text("".join([by_hand, GENERATED, *(f"{line}\n" for line in lines)]))
    print(f"{path}: {len(lines)} lines by the fuzzer")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = sorted(load())
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(known)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target")
    parser.add_argument("--runs", type=int, help="inputs for each target, instead of a time")
    parser.add_argument("--corpus", type=Path, help="a folder to go on from, and to keep")
    parser.add_argument("--save", action="store_true", help="write the corpus into the tests")
    parser.add_argument("--repeat", metavar="HEX", help="run one input")
    options = parser.parse_args()
    if unknown := sorted(set(options.targets) - set(known)):
        parser.error(f"there is no target {unknown[0]!r}; there are {', '.join(known)}")
    if reason := why_not(options.targets or known):
        parser.error(reason)
    limit = f"-max_total_time={options.seconds}"
    if options.runs is not None:
        limit = f"-runs={options.runs}"
    failed = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        fuzzer = Fuzzer(folder)
        for target in options.targets or known:
            if options.repeat is not None:
                (folder / "input").write_bytes(bytes.fromhex(options.repeat))
                status = fuzzer.run(target, folder / "input")
                failed += [target] * (status != 0)
                continue
            print(f"\n==> {target}", flush=True)
            inputs = (options.corpus or folder / "corpus").absolute() / target
            if fuzzer.search(target, inputs, limit):
                fuzzer.minimise(target, inputs)
                if options.save:
                    save(target, inputs)
            else:
                failed.append(target)
    print(f"failed: {', '.join(failed)}" if failed else "nothing was found")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

"""What stands in both languages: numbers, messages and docstrings, in C and in Python.

``python -m tests.twins`` writes what ``help()`` shows of the compiled classes, from the docstrings
and signatures of their twins in Python, into docstrings.h. tests/test_twins.py compares all of it.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anyio_mmsg._packets import packet, slots
from anyio_mmsg._receive.engine import DatagramReader, Engine
from anyio_mmsg._send.engine import Sender

SOURCE = Path(__file__).parent.parent / "src" / "anyio_mmsg"
C_FILES = SOURCE / "_compiled"
HEADER = C_FILES / "docstrings.h"

# The compiled classes, and who has their docstrings: the class itself, or what it implements.
TWINS: dict[str, Any] = {
    "Packet": packet.Packet,
    "Slots": slots.Slots,
    "Recvmmsg": Engine,
    "Sendmmsg": Sender,
}
# What they do beside that.
MORE: dict[str, Any] = {"Recvmmsg": DatagramReader}
HEAD = """\
/* What help() shows of these classes: the docstrings and signatures of their twins in Python.
 * `python -m tests.twins` writes this file; tests/test_twins.py compares it. */
/* clang-format off */
"""


def c_texts() -> Iterator[tuple[str, str]]:
    """Give the name of each C file but the one that is written, and its text without comments."""
    for path in sorted(C_FILES.glob("*.[ch]")):
        if path != HEADER:
            text = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.S)
            yield path.name, text.replace("\\\n", "\n")


def numbers() -> dict[str, int]:
    """Return the numbers that have names in C; names of several files have one value."""
    found: dict[str, int] = {}
    for name, text in c_texts():
        for macro, value in re.findall(r"^#define +(\w+) +(\w+)[ \t]*$", text, re.M):
            if value == "UINT32_MAX" or re.fullmatch(r"\d+|0x[0-9A-Fa-f]+", value):
                number = 2**32 - 1 if value == "UINT32_MAX" else int(value, 0)
                assert found.setdefault(macro, number) == number, f"{macro} in {name}"
    return found


def messages() -> set[str]:
    """Return what C says in words, with % for each thing that is filled in."""
    literal = r'"(?:[^"\\\n]|\\.)*"'
    found = set()
    for _, text in c_texts():
        for joined in re.findall(rf"{literal}(?:\s*{literal})*", text):
            words = "".join(ast.literal_eval(part) for part in re.findall(literal, joined))
            if " " in words:
                found.add(re.sub(r"%(?:zd|d|R|U|s)", "%", words))
    return found


def words_of_python() -> set[str]:
    """Return the strings of the Python code, with % for each thing that is filled in."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = [getattr(part, "value", "") for part in node.values]
                found.add("".join(part if isinstance(part, str) else "%" for part in parts))
    return found


def documented(twin: Any) -> Iterator[tuple[str, Any]]:
    """Give the public members of a class that have a docstring, by their names."""
    for name, member in vars(twin).items():
        speaks = callable(member) or isinstance(member, property)
        if speaks and member.__doc__ and not name.startswith("_"):
            yield name, member


def signature_of(name: str, function: Any, *, of_class: bool = False) -> str:
    """Return the signature of a function in Python as C has it: by position, without types."""
    parameters = [
        f"{parameter.name}"
        if parameter.default is parameter.empty
        else f"{parameter.name}={parameter.default!r}"
        for parameter in inspect.signature(function).parameters.values()
    ]
    if of_class:
        return f"{name}({', '.join(parameters)})"
    parameters[0] = "$self"
    return f"{name}({', '.join([*parameters, '/'])})"


def docstrings() -> dict[str, str]:
    """Return the text of each docstring in C, by the macro that holds it."""
    found = {}
    for name, twin in TWINS.items():
        text = inspect.cleandoc(twin.__doc__)
        if name == "Slots":  # the one that Python code makes by its name
            text = f"{signature_of(name, twin, of_class=True)}\n--\n\n{text}"
        found[f"DOC_{name}"] = text
        for member, thing in [*documented(twin), *documented(MORE.get(name, object))]:
            text = inspect.cleandoc(thing.__doc__)
            if callable(thing):
                text = f"{signature_of(member, thing)}\n--\n\n{text}"
            found[f"DOC_{name}_{member}"] = text
    return found


def header() -> str:
    """Return what docstrings.h is to hold."""
    parts = [HEAD]
    for macro, text in docstrings().items():
        lines = text.split("\n")
        quoted = [line.replace("\\", "\\\\").replace('"', '\\"') for line in lines]
        ends = ["\\n"] * (len(lines) - 1) + [""]
        body = " \\\n".join(f'    "{line}{end}"' for line, end in zip(quoted, ends, strict=True))
        parts.append(f"#define {macro} \\\n{body}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    HEADER.write_text(header(), encoding="utf-8")

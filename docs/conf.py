"""How Sphinx builds the site: `python -m sphinx -W -n --keep-going -b html docs docs/_build/html`.

The pages are Markdown (MyST), and have to read well where the repository is browsed too. So a link
is relative to the file that it stands in, as on any host of repositories, and here it becomes:

- a link to the site's page, if it leads to one of docs/*.md, or to a file of `PAGES_ABOVE`;
- otherwise a link to the file in the repository, once setup.py knows its `REPOSITORY`;
- until then a download of the file; of a folder nothing but its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import pkgutil
import re
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sphinx.application import Sphinx

os.environ["ANYIO_MMSG_COMPILED"] = "0"  # the plain classes have the docstrings and signatures
import anyio_mmsg._compat
import anyio_mmsg._protocol.serve
import anyio_mmsg.testing

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
OWNER = dict(re.findall(r'^([A-Z_]+) = "([^"]*)"', (ROOT / "setup.py").read_text(), re.M))
REPOSITORY = OWNER["REPOSITORY"] and f"{OWNER['REPOSITORY']}/blob/main"

# Files outside docs/ that are pages of the site, and the pages that stand for them. The latter
# have a line for those who browse the repository; the site shows the file instead.
PAGES_ABOVE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "examples/README.md": "examples.md",
}

project = "anyio-mmsg"
author = OWNER["AUTHOR"]
copyright = author  # noqa: A001  # as Sphinx names it
release = version = anyio_mmsg.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]

# Names of others are links where the site is published. Elsewhere a build needs no network.
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", None),
    "anyio": ("https://anyio.readthedocs.io/en/stable", None),
    "trio": ("https://trio.readthedocs.io/en/stable", None),
}
if "READTHEDOCS" not in os.environ:
    intersphinx_mapping.clear()

# Docstrings name things in single backticks: `_resolve` decides which of them are links.
default_role = "py:obj"
add_module_names = False
autodoc_preserve_defaults = True
autodoc_typehints = "signature"
_aliases = [
    "Address",
    "Payload",
    "DatagramLike",
    "Destination",
    "OverloadPolicy",
    "Packets",
    "ReceiveEngine",
    "SendEngine",
    "Sender",
    "Step",
]
autodoc_type_aliases = {name: name for name in _aliases}
maximum_signature_line_length = 90
python_use_unqualified_type_names = True

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = True

highlight_language = "text"  # of a block without a language, such as a drawing
pygments_dark_style = "github-dark"
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_title = f"anyio-mmsg {release}"
html_copy_source = False
html_show_sphinx = False
copybutton_exclude = ".linenos, .gp, .go"

_FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2 *$", re.M | re.S)
_LINK = re.compile(r"(!?)\[((?:[^][]|\[[^]]*\])*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def with_links_of_the_site(text: str, file: Path) -> str:
    """Return Markdown of `file`, a file of the repository, with links that work on the site."""

    def link(match: re.Match[str]) -> str:
        picture, label, name, anchor = match.groups()
        target = (file.parent / name).resolve()
        where = target.relative_to(ROOT).as_posix()
        page = PAGES_ABOVE.get(where)
        if page is not None:
            target = DOCS / page
        elif where == "README.md":
            target = DOCS / "index.md"
        elif not picture and not target.is_relative_to(DOCS):
            if REPOSITORY:
                return f"[{label}]({REPOSITORY}/{where})"
            if target.is_dir():
                return label if "`" in label else f"`{label}`"
        if target.is_dir():
            target = target / "index.md"
        return f"{picture}[{label}](/{os.path.relpath(target, DOCS)}{anchor or ''})"

    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(link, text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(link, text[end:])])


def _read(app: Sphinx, docname: str, source: list[str]) -> None:
    file = DOCS / f"{docname}.md"
    for above, page in PAGES_ABOVE.items():
        if page == f"{docname}.md":
            file = ROOT / above
            source[0] = file.read_text(encoding="utf-8")
            app.env.note_dependency(file)
    source[0] = with_links_of_the_site(source[0], file)


# Names in docstrings

PUBLIC = {name: f"anyio_mmsg.testing.{name}" for name in anyio_mmsg.testing.__all__}
PUBLIC |= {name: f"anyio_mmsg.{name}" for name in anyio_mmsg.__all__}

# Whose methods docstrings name in short, such as `loop.create_datagram_endpoint`.
KNOWN: dict[str, Any] = {
    "compat": anyio_mmsg._compat,  # what older Pythons lack: ExceptionGroup
    "loop": asyncio.AbstractEventLoop,
    "protocol": asyncio.DatagramProtocol,
    "socket": socket.socket,
    "transport": asyncio.DatagramTransport,
    "transport for streams": asyncio.Transport,
}

# It is imported for type checkers alone, and autodoc reads annotations too.
_serve: Any = anyio_mmsg._protocol.serve
_serve.asyncio = asyncio


def _parameters() -> set[str]:
    """The names of all parameters, ours and those of `KNOWN`: they are no links."""
    found: set[str] = set()
    for thing in [*map(pkgutil.resolve_name, PUBLIC.values()), *KNOWN.values()]:
        members = [getattr(thing, name) for name in vars(thing)] if isinstance(thing, type) else []
        for member in filter(callable, [thing, *members]):
            with contextlib.suppress(ValueError, TypeError):  # it has no signature
                found |= set(inspect.signature(member).parameters)
    return found


def _correct(
    app: Sphinx, kind: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Correct what autodoc and napoleon make of a docstring, in place."""
    if kind == "data":  # it has that of its type; the one in the source is where it was defined
        lines[:] = _docstring_of(name.rpartition(".")[2]).splitlines()
    # End the markup of a name before what is appended to it, as in `Packet`s.
    text = re.sub(r"((?<!`)`[\w.]+`)(?=\w)", r"\1\\ ", "\n".join(lines))
    # Show an attribute's type beside its name, not in a paragraph of its own.
    text = re.sub(
        r"^(\.\. attribute:: .*\n)((?: .*\n|\n)*?)   (:type: .*)\n",
        r"\1   \3\n\2",
        text,
        flags=re.M,
    )
    lines[:] = text.split("\n")


def _docstring_of(name: str) -> str:
    """Return the string below the assignment to a name, wherever in the package it is."""
    from sphinx.pycode import ModuleAnalyzer  # here: tests run this file without Sphinx

    for module in [name for name in sys.modules if name.startswith("anyio_mmsg.")]:
        docs = ModuleAnalyzer.for_module(module).find_attr_docs()
        if ("", name) in docs:
            return "\n".join(docs["", name])
    raise LookupError(f"{name} has no docstring")


def _name_aliases(
    app: Sphinx, kind: str, name: str, thing: Any, options: Any, *shown: str | None
) -> tuple[str | None, ...]:
    """Show `list[Address]` as it is written: autodoc names aliases only where they stand alone."""
    return tuple(s and re.sub(r"TypeAliasForwardRef\('(\w+)'\)", r"\1", s) for s in shown)


def _resolve(app: Sphinx, env: Any, node: Any, shown: Any) -> Any:
    """Find our names in short. It is asked before intersphinx."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    first, dot, rest = target.partition(".")
    full = PUBLIC[first] + dot + rest if first in PUBLIC else _inherited(node, target)
    if full:
        if rest in PARAMETERS and hasattr(pkgutil.resolve_name(PUBLIC[first]), rest):
            full = PUBLIC[first]  # which describes it as a parameter
        return env.domains["py"].resolve_xref(
            env, node["refdoc"], app.builder, "obj", full, node, shown
        )
    return None


def _stack(app: Sphinx, doctree: Any, docname: str) -> None:
    """Have tables of words stack the cells of a row on a phone, where they don't fit side by side.

    `_static/site.css` does that. It also hides elsewhere the headings that a cell gets here if a
    row has several to tell apart. Tables of which most cells are figures stay as they are, and
    scroll.
    """
    nodes = pkgutil.resolve_name("docutils.nodes")  # here: tests run this file without Sphinx

    for table in doctree.findall(nodes.table):
        headings = [entry.astext() for head in table.findall(nodes.thead) for entry in head[0]]
        rows = [row for body in table.findall(nodes.tbody) for row in body]
        texts = [text for row in rows for entry in row[1:] if (text := entry.astext())]
        if 2 * sum(text[0].isdigit() for text in texts) > len(texts):
            continue
        table["classes"].append("words")
        for row in rows:
            for heading, entry in zip(headings[1:], row[1:], strict=True):
                if len(headings) > 2 and len(entry):
                    entry[0].insert(0, nodes.inline("", f"{heading}: ", classes=["heading"]))


def _accept(app: Sphinx, env: Any, node: Any, shown: Any) -> Any:
    """Accept parameters, and names of others that exist, without a link.

    What is none of these is a warning, so names that were misspelt are found.
    """
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    first, dot, rest = target.partition(".")
    name = rest if dot and first in KNOWN else target
    if name in PARAMETERS or any(hasattr(kind, name) for kind in KNOWN.values()):
        return shown
    with contextlib.suppress(ValueError, ImportError, AttributeError):
        pkgutil.resolve_name(target)
        return shown
    return None


def _inherited(node: Any, target: str) -> str | None:
    """Return the full name of a member that a docstring names and its class inherits."""
    kind: Any = pkgutil.resolve_name(PUBLIC.get(node.get("py:class"), "builtins.object"))
    for base in getattr(kind, "__mro__", ())[1:]:
        if target in vars(base) and base.__name__ in PUBLIC:
            return f"{PUBLIC[base.__name__]}.{target}"
    return None


PARAMETERS = _parameters()


def setup(app: Sphinx) -> None:
    """Have Sphinx ask the functions above."""
    app.connect("source-read", _read)
    app.connect("autodoc-process-docstring", _correct)
    app.connect("autodoc-process-signature", _name_aliases)
    app.connect("doctree-resolved", _stack)
    app.connect("missing-reference", _resolve, priority=400)
    app.connect("missing-reference", _accept, priority=600)

"""How Sphinx builds the site: `python -m sphinx -W -n --keep-going -b html docs docs/_build/html`.

The pages are Markdown (MyST), and have to read well where the repository is browsed too. So a link
is relative to the file that it stands in, as on any host of repositories, and here it becomes:

- a link to the site's page, if it leads to one of docs/*.md, or to a file of `PAGES_ABOVE`;
- otherwise a link to the file in the repository, once setup.py knows its `REPOSITORY`;
- until then a download of the file; of a folder nothing but its name.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

os.environ["ANYIO_MMSG_COMPILED"] = "0"  # the plain classes have the docstrings and signatures

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
REPOSITORY = re.findall(r'^REPOSITORY = "([^"]*)"', (ROOT / "setup.py").read_text(), re.M)[0]

# Files outside docs/ that are pages of the site, and the pages that stand for them. The latter
# have a line for those who browse the repository; the site shows the file instead.
PAGES_ABOVE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}

project = "anyio-mmsg"
author = "the authors of anyio-mmsg"
copyright = author  # noqa: A001  # as Sphinx names it
release = version = importlib.metadata.version("anyio-mmsg")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = True

html_theme = "furo"
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


def setup(app: Sphinx) -> None:
    """Have Sphinx read pages with links that work on the site."""
    app.connect("source-read", _read)

"""How the package is built: the compiled module, the wheel's tag, the long description.

Everything else is in pyproject.toml. ``ANYIO_MMSG_COMPILED`` in the environment says what becomes
of the compiled module: with 1 the build fails without it, with 0 it is left out, otherwise a
machine that can't build it makes a plain package.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
import sysconfig
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# What the owner of a repository fills in; nothing else has it. docs/conf.py reads it too.
REPOSITORY = ""  # such as "https://github.com/OWNER/NAME"
SITE = ""  # where the docs are, such as "https://NAME.readthedocs.io"
AUTHOR = "the authors of anyio-mmsg"
AUTHOR_EMAIL = ""

FILES = REPOSITORY and f"{REPOSITORY}/blob/main"  # where files are shown
ROOT = Path(__file__).parent
C_FILES = Path("src", "anyio_mmsg", "_compiled")  # seen from ROOT, as setuptools wants it

_RELATIVE_LINK = re.compile(r"(!?)\[([^]]*)\]\((?![a-z]+:|#)([^)]*)\)")


def for_an_index(readme: str, files: str = FILES) -> str:
    """Return the text of README.md with links that work where it is shown without other files.

    With `files`, where those are shown, its relative links become absolute. Otherwise they become
    the names of the files, which the source distribution has.
    """

    def link(match: re.Match[str]) -> str:
        picture, text, file = match.groups()
        if files:
            return f"{picture}[{text}]({files}/{file}{'?raw=true' if picture else ''})"
        if picture:
            return f"(Picture: `{file}`. {text}.)"
        return f"`{file}`" if text in file else f"{text} (`{file}`)"

    return _RELATIVE_LINK.sub(link, readme)


def about() -> dict[str, Any]:
    """Return what the owner has filled in, as `setup` takes it."""
    urls = {"Documentation": SITE}
    if REPOSITORY:
        urls |= {"Source": REPOSITORY, "Issues": f"{REPOSITORY}/issues"}
        urls |= {"Changelog": f"{FILES}/CHANGELOG.md"}
    found = {"author": AUTHOR, "author_email": AUTHOR_EMAIL}
    found |= {"project_urls": {name: url for name, url in urls.items() if url}}
    return {name: value for name, value in found.items() if value}


def extensions(setting: str) -> list[Extension]:
    """Return the compiled module, unless this Python or the environment does without it."""
    possible = sys.implementation.name == "cpython" and not sysconfig.get_config_var(
        "Py_GIL_DISABLED"
    )
    if setting == "1" and not possible:
        sys.exit("ANYIO_MMSG_COMPILED=1 demands the compiled module, which is for CPython's GIL")
    if setting == "0" or not possible:
        return []
    return [
        Extension(
            "anyio_mmsg._compiled",
            sorted(str(C_FILES / file.name) for file in (ROOT / C_FILES).glob("*.c")),
            depends=sorted(str(C_FILES / file.name) for file in (ROOT / C_FILES).glob("*.h")),
            define_macros=[("ANYIO_MMSG_SOURCES", FINGERPRINT)],
            optional=setting != "1",
        )
    ]


class BuildModule(build_ext):
    """Builds the compiled module; what an earlier build has left is no part of this one."""

    for_the_checkout = False

    def run(self) -> None:
        """Build it into build/ and, for the checkout, copy it from there."""
        self.for_the_checkout = bool(self.inplace or self.editable_mode)
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Build it, for a wheel anew and without what only debuggers read."""
        built = Path(self.get_ext_fullpath(ext.name))
        if built.exists() and not (
            self.for_the_checkout and FINGERPRINT.encode() in built.read_bytes()
        ):
            built.unlink()
        if self.compiler.compiler_type == "unix" and not self.for_the_checkout:
            ext.extra_compile_args = ["-g0"]
            ext.extra_link_args = ["-Wl,-s"] if sys.platform == "linux" else []
        super().build_extension(ext)


class BuildPython(build_py):
    """Adds the fingerprint of the C files, which the package itself lacks."""

    def run(self) -> None:
        """Copy the package."""
        super().run()
        if not self.editable_mode:
            file = Path(self.build_lib, "anyio_mmsg", "_compiled", STAMP)
            file.write_text(FINGERPRINT, "ascii")


class Wheel(bdist_wheel):
    """Tags a wheel without the compiled module as what it is: for any machine, and any Python."""

    def run(self) -> None:
        """Build, look, then pack."""
        self.run_command("build")
        build = self.get_finalized_command("build_ext")
        self.distribution.ext_modules = [
            module
            for module in self.distribution.ext_modules or []
            if Path(build.get_ext_fullpath(module.name)).exists()
        ]
        self.root_is_pure = not self.distribution.ext_modules
        super().run()


if __name__ == "__main__":
    _build = runpy.run_path(str(ROOT / "src" / "anyio_mmsg" / "_build.py"))
    STAMP = _build["STAMP"]
    FINGERPRINT = _build["fingerprint"](ROOT / C_FILES)
    setup(
        **about(),
        long_description=for_an_index((ROOT / "README.md").read_text(encoding="utf-8")),
        long_description_content_type="text/markdown",
        ext_modules=extensions(os.environ.get("ANYIO_MMSG_COMPILED", "")),
        cmdclass={"bdist_wheel": Wheel, "build_ext": BuildModule, "build_py": BuildPython},
    )

"""The long description. Everything else is in pyproject.toml.

A package index shows README.md without the files around it, so its relative links would lead
nowhere there. With a `REPOSITORY` they become absolute. Without one, they become the names of the
files, which the source distribution has.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import setup

REPOSITORY = ""  # where files are shown, such as "https://github.com/OWNER/NAME/blob/main"

_RELATIVE_LINK = re.compile(r"(!?)\[([^]]*)\]\((?![a-z]+:|#)([^)]*)\)")


def for_an_index(readme: str, repository: str = REPOSITORY) -> str:
    """Return the text of README.md with links that work wherever it is shown."""

    def link(match: re.Match[str]) -> str:
        picture, text, file = match.groups()
        if repository:
            return f"{picture}[{text}]({repository}/{file}{'?raw=true' if picture else ''})"
        if picture:
            return f"(Picture: `{file}`. {text}.)"
        return f"`{file}`" if text in file else f"{text} (`{file}`)"

    return _RELATIVE_LINK.sub(link, readme)


if __name__ == "__main__":
    readme = (Path(__file__).parent / "README.md").read_text(encoding="utf-8")
    setup(
        long_description=for_an_index(readme),
        long_description_content_type="text/markdown",
    )

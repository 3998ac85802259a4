"""Print the lowest version that each dependency, run-time and test, may have, for pip."""

from __future__ import annotations

from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10; pip, which is there, has it
    from pip._vendor import tomli as tomllib

settings = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text("utf-8"))
for requirement in settings["project"]["dependencies"] + settings["dependency-groups"]["test"]:
    print(requirement.replace(">=", "=="))

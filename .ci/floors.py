"""Print the lowest version that each dependency, run-time and test, may have, for pip.

Run by a Python that has the package installed.
"""

from __future__ import annotations

from importlib.metadata import requires

for requirement in requires("anyio-mmsg") or []:
    wanted, _, marker = requirement.partition(";")
    if "extra" not in marker or "test" in marker:
        print(wanted.strip().replace(">=", "=="))

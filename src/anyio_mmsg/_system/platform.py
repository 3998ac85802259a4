"""What the system is. The only module that asks for the platform."""

from __future__ import annotations

import sys

ON_LINUX = sys.platform == "linux"
ON_WINDOWS = sys.platform == "win32"

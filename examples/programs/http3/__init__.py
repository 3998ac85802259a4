"""HTTP/3 on aioquic, as bytes in and bytes out: no socket, no event loop, no clock.

`endpoint` finds the connection that a datagram belongs to, and makes new ones; `connection` is one
client's; `site` answers requests. http3_server.py, next to this folder, is the server.
"""

from __future__ import annotations

from .connection import QUIET, WINDOW, Connection, Datagram
from .endpoint import Endpoint
from .site import Response, Site, read_folder

__all__ = [
    "QUIET",
    "WINDOW",
    "Connection",
    "Datagram",
    "Endpoint",
    "Response",
    "Site",
    "read_folder",
]

"""Answers to DNS queries, for one zone: bytes to bytes, without a socket or an event loop.

`wire` reads queries and writes answers, `zone` looks names up in a zone file, and `answerer` puts
both together and remembers answers. dns_server.py, next to this folder, is the server.
"""

from __future__ import annotations

from .answerer import MAX_REMEMBERED, Answerer, Statistics, load
from .wire import LARGEST_SIZE, MalformedError
from .zone import MAX_CHAIN, Lookup

__all__ = [
    "LARGEST_SIZE",
    "MAX_CHAIN",
    "MAX_REMEMBERED",
    "Answerer",
    "Lookup",
    "MalformedError",
    "Statistics",
    "load",
]

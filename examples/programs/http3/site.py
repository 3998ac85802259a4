"""What the server answers: files of a folder, which is read once, and bytes to measure with."""

from __future__ import annotations

import html
import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

CHUNK = 32 * 1024  # bytes of a body that are handed to QUIC together
MOST_BYTES = 1 << 30  # that /bytes/N gives
ZEROS = bytes(CHUNK)


@dataclass
class Response:
    """What one request gets."""

    status: int
    content_type: str
    size: int | None  # bytes of the body, to be announced
    body: Iterator[bytes]
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


@dataclass
class Site:
    """Answers requests from files in memory.

    Attributes:
        files: Content by path, such as "/a/b.txt". "/" is a list of them, or index.html.
    """

    files: Mapping[str, bytes]

    def respond(self, method: str, path: str) -> Response:
        """Answer a request."""
        if method not in ("GET", "HEAD"):
            answer = text(405, "only GET and HEAD\n")
            answer.headers.append((b"allow", b"GET, HEAD"))
        else:
            answer = self._look_up(unquote(path.partition("?")[0]))
        if method == "HEAD":  # aioquic's client takes a length without a body for an error
            answer.body, answer.size = iter(()), None
        return answer

    def _look_up(self, path: str) -> Response:
        if path.endswith("/") and path + "index.html" in self.files:
            path += "index.html"
        content = self.files.get(path)
        if content is not None:
            kind = mimetypes.guess_type(path)[0] or "application/octet-stream"
            return Response(200, kind, len(content), pieces(content))
        if path == "/":
            return text(200, self._index(), "text/html; charset=utf-8")
        size = path.removeprefix("/bytes/")
        if size != path and size.isascii() and size.isdecimal() and len(size) <= 10:
            count = int(size)
            if count <= MOST_BYTES:
                return Response(200, "application/octet-stream", count, zeros(count))
        return text(404, "not found\n")

    def _index(self) -> str:
        links = [
            f'<li><a href="{quote(path)}">{html.escape(path)}</a>, {len(content):,} bytes'
            for path, content in sorted(self.files.items())
        ]
        links.append('<li><a href="/bytes/1000000">/bytes/1000000</a>, or any other number')
        return f"<!doctype html><title>Files</title><h1>Files</h1><ul>{''.join(links)}</ul>\n"


def text(status: int, content: str, kind: str = "text/plain; charset=utf-8") -> Response:
    """Return a response with some text."""
    body = content.encode()
    return Response(status, kind, len(body), pieces(body))


def pieces(content: bytes) -> Iterator[bytes]:
    """Yield content by chunks."""
    for start in range(0, len(content), CHUNK):
        yield content[start : start + CHUNK]


def zeros(count: int) -> Iterator[bytes]:
    """Yield that many bytes by chunks."""
    for _ in range(count // CHUNK):
        yield ZEROS
    if count % CHUNK:
        yield ZEROS[: count % CHUNK]


def read_folder(folder: Path | None) -> dict[str, bytes]:
    """Return the files below a folder by their paths; hidden ones are left out."""
    if folder is None:
        return {}
    found = {}
    for file in sorted(folder.rglob("*")):
        parts = file.relative_to(folder).parts
        if file.is_file() and not any(part.startswith(".") for part in parts):
            found["/" + "/".join(parts)] = file.read_bytes()
    return found

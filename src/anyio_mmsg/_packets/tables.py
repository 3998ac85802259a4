"""`Tables`: views of many packets that a ring has handed out, and their end."""

from __future__ import annotations


class Tables:
    """The views that `columns` returned for one ring: each dies with the first of its packets.

    There are at most as many as packets held: the same packets get the same view again.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        # The numbers of their packets, without the last one; the oldest first.
        self._known: list[tuple[range, memoryview]] = []

    def view_of(self, packets: range) -> memoryview | None:
        """Return the view of exactly these packets, if it was made and is alive."""
        if self._known:
            known, view = self._known[-1]
            if known == packets and not _is_dead(view):
                return view
        return None

    def add(self, packets: range, view: memoryview) -> None:
        """Remember the view of some packets."""
        self._known.append((packets, view))

    def end(self, until: int) -> None:
        """Release the views of packets before number `until`.

        Raises:
            BufferError: Something holds an export of one.
        """
        while self._known and self._known[0][0].start < until:
            self._known[0][1].release()
            del self._known[0]


def _is_dead(view: memoryview) -> bool:
    try:
        view.nbytes  # noqa: B018
    except ValueError:
        return True
    return False

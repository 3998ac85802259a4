"""Memory for slots and copies: from the system, or the program's own."""

from __future__ import annotations

import contextlib
import mmap
import re
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

    Memory: TypeAlias = WriteableBuffer
else:
    Memory = Any

_FIX = (
    "give something writable and C-contiguous, such as a bytearray, a numpy array, an mmap or the "
    "buf of a multiprocessing.shared_memory.SharedMemory"
)


def paged(size: int) -> mmap.mmap:
    """Return memory whose pages the system provides only when they are written to.

    A bytearray would have them all at once. A forked process has a copy of the memory.
    """
    if not hasattr(mmap, "MAP_PRIVATE"):  # Windows, which does not fork
        return mmap.mmap(-1, size)
    memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(AttributeError, OSError):  # not Linux; or built without them
        memory.madvise(mmap.MADV_NOHUGEPAGE)  # a huge page is 2 MiB, a train at most 64 KiB
    return memory


def borrowed(memory: Memory, size: int) -> memoryview:
    """Return the first `size` bytes of a program's own memory, as a view that holds an export.

    Raises:
        TypeError: `memory` is not a buffer, or one of Python objects, which packets would break.
        ValueError: It is read-only, not C-contiguous, or has fewer bytes.
    """
    try:
        whole = memoryview(memory)
    except TypeError:
        raise TypeError(f"memory is a {type(memory).__name__}, not a buffer; {_FIX}") from None
    except (ValueError, BufferError) as error:
        raise ValueError(f"memory can't be used: {error}; {_FIX}") from None
    with whole:
        if "O" in re.sub(":[^:]*:", "", whole.format):  # without the names of fields (PEP 3118)
            raise TypeError(f"memory holds Python objects, not bytes; {_FIX}")
        if whole.readonly:
            raise ValueError(f"memory is read-only; {_FIX}")
        if not whole.c_contiguous:
            raise ValueError(f"memory is not C-contiguous; {_FIX}")
        if whole.nbytes < size:
            raise ValueError(
                f"memory has {whole.nbytes:,} bytes, and the slots need {size:,}: give at least "
                f"capacity * slot_size"
            )
    # The memory may have a format that `memoryview.cast` refuses.
    return PickleBuffer(memory).raw()[:size]

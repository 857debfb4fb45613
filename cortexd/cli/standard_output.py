"""Standard output, so that its failure can be told from any other: a full disk under it, a reader
that has gone away, or none at all.

What a verb prints goes through here without the verb's knowing. Owns the exception and its words.
"""

import errno
import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_BUFFER_BYTES = 65_536


class OutputLost(Exception):
    """Standard output cannot be written. Raised once; what is written after that is dropped.

    The message says why. `by_reader`: who read it has gone away, which is no fault (`| head -1`).
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output cannot be written: {os.strerror(error.errno or 0)}")
        self.by_reader = error.errno == errno.EPIPE


def take_over_standard_output() -> None:
    """Have `sys.stdout` raise OutputLost. One that somebody has put there is left alone."""
    if sys.stdout is sys.__stdout__:
        sys.stdout = _told_apart(sys.__stdout__)


def _told_apart(given: TextIO | None) -> TextIO:
    if given is None:  # it was closed before we began (`>&-`)
        raw = _Output(os.devnull, "wb")
        raw.error = OSError(errno.EBADF, "")
        return io.TextIOWrapper(io.BufferedWriter(raw, _BUFFER_BYTES))
    raw = _Output(given.fileno(), "wb", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw, _BUFFER_BYTES),
        encoding=given.encoding,
        errors=given.errors,
        line_buffering=raw.isatty(),
    )


class _Output(io.FileIO):
    """The descriptor. Python flushes once more at its end, and must not meet the failure again."""

    error: OSError | None = None
    _is_lost = False

    def write(self, data: "ReadableBuffer", /) -> int:
        if self._is_lost:
            return memoryview(data).nbytes
        try:
            if self.error is not None:
                raise self.error
            return super().write(data)
        except OSError as error:
            self._is_lost = True
            raise OutputLost(error) from error

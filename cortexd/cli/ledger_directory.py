"""Which ledger a verb reads, and the read-only view of its directory.

Owns the two flags that name a ledger, and files that are opened for reading and nothing else: no
lock is taken, no file made, so that a running daemon does not notice.
"""

import argparse
import contextlib
import datetime
import functools
import os
from collections.abc import Iterator

from cortexd.config.load import (
    ConfigProblems,
    default_ledger_directory,
    load_ledger_directory,
    render,
)
from cortexd.ledger.clock import LedgerClock, system_time
from cortexd.ledger.opening import last_seen
from cortexd.ledger.records import Header

__all__ = ["LedgerDirectory", "Unreadable", "add_ledger_flags", "clock_after", "iso", "opened"]

_READ_BYTES = 1 << 20
_DIRECTORY_VARIABLE = "CORTEXD_LEDGER__DIRECTORY"


class Unreadable(Exception):
    """There is nothing to read. `exit_code`: what that is to a shell."""

    def __init__(self, what: str, exit_code: int) -> None:
        super().__init__(what)
        self.exit_code = exit_code


def add_ledger_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--directory` and `--config`, of which one at most is given."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--directory",
        metavar="DIR",
        help="the ledger's directory (default: where `serve` would have it without a setting)",
    )
    which.add_argument("--config", metavar="FILE", help="read which one from a configuration")


class LedgerDirectory:
    """A directory of a ledger, open for reading. Implements `cortexd.ledger.reading.Folder`."""

    def __init__(self, path: str, directory: int) -> None:
        self.path = path
        self._directory = directory

    def names(self) -> list[str]:
        """All file names."""
        return os.listdir(self._directory)

    def read(self, name: str, bytes_max: int | None = None) -> bytes:
        """A file, or its first so many bytes."""
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            if bytes_max is not None:
                return os.read(file, bytes_max)
            pieces = []
            while piece := os.read(file, _READ_BYTES):
                pieces.append(piece)
            return b"".join(pieces)
        except OSError as error:
            error.filename = name  # by which it is told from an error of standard output
            raise
        finally:
            os.close(file)


@contextlib.contextmanager
def opened(arguments: argparse.Namespace) -> Iterator[LedgerDirectory]:
    """The directory that the flags name. Raises Unreadable, also for what happens to it inside."""
    path = _path(arguments)
    try:
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise Unreadable(f"{path}: {error.strerror}. {_HINT}", 1) from error
    try:
        yield LedgerDirectory(path, directory)
    except OSError as error:
        if error.filename is None:
            raise
        raise Unreadable(f"{path}/{error.filename}: {error.strerror}. {_HINT}", 1) from error
    finally:
        os.close(directory)


_HINT = (
    "Name the ledger with --directory or --config; its files can be read by the user that the "
    "daemon runs as, and by root."
)


def _path(arguments: argparse.Namespace) -> str:
    if arguments.directory is not None:
        return os.path.abspath(str(arguments.directory))
    if arguments.config is None:
        named = os.environ.get(_DIRECTORY_VARIABLE)
        return os.path.abspath(named) if named else default_ledger_directory(os.environ)
    try:
        return load_ledger_directory(arguments.config, os.environ)
    except ConfigProblems as found:
        raise Unreadable(render(found.problems), 2) from found


def clock_after(header: Header, newest_entry_ms: int) -> LedgerClock:
    """The clock that a daemon would have here and now after this segment."""
    return LedgerClock(system_time(), last_seen(header, newest_entry_ms), "wall")


def iso(ledger_ms: int) -> str:
    """A moment of ledger time as UTC: `iso(1763900000123) == "2025-11-23T12:13:20.123Z"`."""
    return f"{_iso_second(ledger_ms // 1000)}.{ledger_ms % 1000:03d}Z"


@functools.lru_cache(maxsize=64)  # entries of one second follow each other
def _iso_second(second: int) -> str:
    try:
        moment = datetime.datetime.fromtimestamp(second, datetime.UTC)
    except (ValueError, OverflowError):  # beyond the year 9999: nobody's clock, but still a number
        return f"@{second}"
    return moment.strftime("%Y-%m-%dT%H:%M:%S")

"""The journal's directory: the ten operations through which the journal sees the disk.

It owns the directory, its lock and the modes of its files (0700, 0600). It knows nothing of what
the files say. The journal only ever writes files that it has created itself; `Disk` is what tests
replace by a disk that loses power.
"""

import contextlib
import errno
import fcntl
import os
import sys
from typing import Literal, Protocol

LOCK_NAME = "lock"
HINT_NAME = "durable.hint"

_READ_BYTES = 1 << 20


class LedgerProblem(Exception):
    """Why the ledger cannot be opened.

    `where` is the directory, or a file in it with an offset; `hint` says what to do. `kind` tells
    the cases apart: "locked" (another daemon has it), "unusable" (the directory or the disk
    refuses), "damaged" (what was durable is not there any more) and "other_format" (this version
    cannot read it). In the last two a human must decide, and trying again changes nothing.
    """

    def __init__(
        self,
        where: str,
        what: str,
        hint: str,
        kind: Literal["locked", "unusable", "damaged", "other_format"],
    ) -> None:
        super().__init__(f"{where}: {what}. {hint}")
        self.where = where
        self.what = what
        self.hint = hint
        self.kind = kind

    @property
    def is_lasting(self) -> bool:
        """Whether the next try would find the same, until somebody has done something."""
        return self.kind in ("damaged", "other_format")


class Disk(Protocol):
    """One flat directory. Files are known by the number that `create` returned.

    Every operation may raise OSError; all of them block.
    """

    def names(self) -> list[str]:
        """All file names, sorted."""

    def read(self, name: str, bytes_max: int | None = None) -> bytes:
        """The whole content of a file, or its first so many bytes."""

    def create(self, name: str) -> int:
        """A new, empty file for appending. FileExistsError when there is one already."""

    def write(self, file: int, data: bytes) -> int:
        """Append; how many bytes were taken, which may be fewer than given."""

    def sync(self, file: int) -> None:
        """Return once every byte written to the file survives a power loss."""

    def close(self, file: int) -> None:
        """Give the file back, without a word about its durability."""

    def sync_closed(self, name: str) -> None:
        """`sync` for a file that nobody has open, not even its writer any more."""

    def rename(self, old: str, new: str) -> None:
        """Atomic, and not durable before `sync_directory`."""

    def remove(self, name: str) -> None:
        """Take a file out of the directory."""

    def sync_directory(self) -> None:
        """Return once every create, rename and remove survives a power loss."""

    def write_hint(self, data: bytes) -> None:
        """Overwrite the hint file in place; never synced."""

    # The rest touches no file's content, and is not counted among the ten.

    def size_bytes(self, name: str) -> int:
        """How long a file is."""

    def free_bytes(self) -> int:
        """What an ordinary user may still write here."""

    def shut(self) -> None:
        """Give the lock and the directory back."""


class DirectoryDisk:
    """The real thing. `open` takes the lock, `shut` gives it back (so does the process's end)."""

    def __init__(self, path: str, directory: int, lock: int) -> None:
        self.path = path
        self._directory = directory
        self._lock = lock
        self._hint: int | None = None

    @classmethod
    def open(cls, path: str) -> "DirectoryDisk":
        """Make the directory if it is missing, own it and lock it. Raises `LedgerProblem`."""
        try:
            _make_durably(path)
            directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise unusable(path, error) from error
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, directory)
            owner = os.fstat(directory).st_uid
            if owner != os.geteuid():
                raise LedgerProblem(
                    path,
                    f"the directory belongs to user {owner}, this process is user {os.geteuid()}",
                    "Run as the directory's owner, or name another one in ledger.directory.",
                    "unusable",
                )
            lock = _take_lock(path, directory)
            undo.pop_all()
        return cls(path, directory, lock)

    def shut(self) -> None:
        """Release the lock and every descriptor but those of `create`d files."""
        for descriptor in (self._hint, self._lock, self._directory):
            if descriptor is not None:
                os.close(descriptor)

    def names(self) -> list[str]:
        return sorted(os.listdir(self._directory))

    def read(self, name: str, bytes_max: int | None = None) -> bytes:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        left = sys.maxsize if bytes_max is None else bytes_max
        try:
            pieces = []
            while left and (piece := os.read(file, min(left, _READ_BYTES))):
                pieces.append(piece)
                left -= len(piece)
            return b"".join(pieces)
        finally:
            os.close(file)

    def create(self, name: str) -> int:
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
        return os.open(name, flags, 0o600, dir_fd=self._directory)

    def write(self, file: int, data: bytes) -> int:
        return os.write(file, data)

    def sync(self, file: int) -> None:
        os.fdatasync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def sync_closed(self, name: str) -> None:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._directory)
        try:
            os.fdatasync(file)
        finally:
            os.close(file)

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._directory, dst_dir_fd=self._directory)

    def remove(self, name: str) -> None:
        os.unlink(name, dir_fd=self._directory)

    def sync_directory(self) -> None:
        os.fsync(self._directory)

    def write_hint(self, data: bytes) -> None:
        if self._hint is None:
            flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._hint = os.open(HINT_NAME, flags, 0o600, dir_fd=self._directory)
        os.pwrite(self._hint, data, 0)

    def size_bytes(self, name: str) -> int:
        return os.stat(name, dir_fd=self._directory, follow_symlinks=False).st_size

    def free_bytes(self) -> int:
        room = os.fstatvfs(self._directory)
        return room.f_bavail * room.f_frsize


def unusable(where: str, error: OSError) -> LedgerProblem:
    """The problem that an operating system error at start amounts to."""
    match error.errno:
        case errno.EACCES | errno.EPERM:
            hint = "Give this user the directory, or name another one in ledger.directory."
        case errno.EROFS:
            hint = "The file system is read-only: remount it, or name another directory."
        case errno.ENOSPC | errno.EDQUOT:
            hint = "Make room on the file system, then start again; no budget was lost."
        case errno.EIO:
            hint = "The disk reports errors: look at the kernel log before starting again."
        case _:
            hint = "Name a directory that this user can create and write in ledger.directory."
    what = f"the ledger cannot use it: {error.strerror or error}"
    return LedgerProblem(where, what, hint, "unusable")


def _make_durably(path: str) -> None:
    """Create the directory with its parents, so that a power loss cannot take it away again."""
    missing = []
    here = os.path.abspath(path)
    while not os.path.isdir(here):
        missing.append(here)
        here = os.path.dirname(here)
    for directory in reversed(missing):
        # Only the last one is ours; the ones above it belong to the host's habits.
        os.mkdir(directory, 0o700 if directory == missing[0] else 0o755)
        parent = os.open(os.path.dirname(directory), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(parent)
        finally:
            os.close(parent)


def _take_lock(path: str, directory: int) -> int:
    flags = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        lock = os.open(LOCK_NAME, flags, 0o600, dir_fd=directory)
    except OSError as error:
        raise unusable(path, error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).strip()
        os.close(lock)
        by = f" (process {holder.decode()})" if holder.isdigit() else ""
        raise LedgerProblem(
            path,
            f"another cortexd{by} has this ledger open",
            "Stop it first, or name another directory in ledger.directory.",
            "locked",
        ) from None
    except OSError as error:
        os.close(lock)
        raise unusable(path, error) from error
    return lock

"""A disk for tests: it lives in memory, remembers what is durable, and fails where it is told to.

Each file has three views: `cache` (what a reader sees now), `durable` (what surely survives a power
loss) and `unsynced` (what may survive, whole or in part). Directory operations wait for
`sync_directory` likewise. An image after a failure is a new disk; this one stays as it is, so that
one workload can be failed at every one of its operations, in every way. Images are made by the
million: what nobody writes to any more is shared between them.
"""

import errno
import itertools
import random
from collections.abc import Callable, Iterable
from typing import Literal

SECTOR_BYTES = 512

Fault = Literal["EIO", "ENOSPC", "short"]
PowerLoss = Literal["nothing", "everything", "prefix", "subset"]
"""What of the unsynced data got to the disk; "subset" tears sectors and may run the size ahead."""


class Crash(BaseException):
    """The process died here. Not an Exception: nothing in the product may catch it."""


class _File:
    __slots__ = ("cache", "durable", "unsynced")

    def __init__(self) -> None:
        self.cache: bytes | bytearray = b""  # bytes: shared, to be copied before it is changed
        self.durable = b""
        self.unsynced: list[tuple[int, bytes]] = []

    def copy(self) -> "_File":
        twin = _File()
        twin.cache = bytes(self.cache)
        twin.durable = self.durable
        twin.unsynced = list(self.unsynced)
        return twin

    def put(self, offset: int, data: bytes) -> None:
        if isinstance(self.cache, bytes):
            self.cache = bytearray(self.cache)
        self.cache[offset : offset + len(data)] = data
        self.unsynced.append((offset, data))


class _Change:
    """A directory operation: `name` becomes `file` (None: disappears), `gone` disappears too."""

    __slots__ = ("file", "gone", "name")

    def __init__(self, name: str, file: _File | None, gone: str | None = None) -> None:
        self.name = name
        self.file = file
        self.gone = gone

    def apply(self, names: dict[str, _File]) -> None:
        if self.gone is not None:
            names.pop(self.gone, None)
        if self.file is None:
            names.pop(self.name, None)
        else:
            names[self.name] = self.file


class SimulatedDisk:
    """Implements `cortexd.ledger.disk.Disk`.

    `operations` counts what the journal did (the faults' index); `on_operation` hears each one
    before it takes effect; at operation `crash_at` and ever after, `Crash` is raised. `room_bytes`
    (None: enough) is what the disk still takes; `is_read_only` is a file system that was remounted.
    """

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.operations = 0
        self.log: list[str] = []
        self.faults: dict[int, Fault] = {}
        self.crash_at: int | None = None
        self.on_operation: Callable[[str], None] | None = None
        self.free = 1 << 40
        self.room_bytes: int | None = None
        self.is_read_only = False
        self.is_shut = False
        self._names: dict[str, _File] = {}
        self._durable_names: dict[str, _File] = {}
        self._changes: list[_Change] = []
        self._files: dict[int, _File] = {}
        self._numbers = itertools.count(3)

    # what the journal sees

    def names(self) -> list[str]:
        return sorted(self._names)

    def read(self, name: str, bytes_max: int | None = None) -> bytes:
        return bytes(self._found(name).cache[:bytes_max])

    def create(self, name: str) -> int:
        self._fail_if_told(self._begin("create"))
        if name in self._names:
            raise FileExistsError(errno.EEXIST, "simulated", name)
        file = _File()
        self._change(_Change(name, file))
        number = next(self._numbers)
        self._files[number] = file
        return number

    def write(self, file: int, data: bytes) -> int:
        fault = self._begin("write")
        taken = len(data)
        if fault == "ENOSPC":
            taken = self.random.randrange(len(data))
            if taken == 0:
                raise OSError(errno.ENOSPC, "simulated")
            self.faults[self.operations + 1] = "ENOSPC"  # a full disk stays full
        elif fault == "short":
            taken = self.random.randrange(1, len(data) + 1)
        else:
            self._fail_if_told(fault)
        if self.room_bytes is not None:
            taken = min(taken, self.room_bytes)
            self.room_bytes -= taken
            if taken == 0:
                raise OSError(errno.ENOSPC, "simulated")
        target = self._files[file]
        target.put(len(target.cache), bytes(data[:taken]))
        return taken

    def sync(self, file: int) -> None:
        fault = self._begin("sync")
        self._sync(self._files[file], fault)

    def _sync(self, target: _File, fault: Fault | None) -> None:
        if fault is None or fault == "short":
            target.durable = self._persisted(target, "everything")
            target.unsynced = []
            return
        # As ext4 and XFS do it: the pages count as clean from now on. A reader still sees them,
        # the disk has some of them, and nobody will ever write the others.
        target.durable = self._persisted(target, "subset")
        target.unsynced = []
        self._fail_if_told(fault)

    def close(self, file: int) -> None:
        del self._files[file]

    def rename(self, old: str, new: str) -> None:
        self._fail_if_told(self._begin("rename"))
        self._change(_Change(new, self._names[old], gone=old))

    def remove(self, name: str) -> None:
        self._fail_if_told(self._begin("remove"))
        self._found(name)
        self._change(_Change(name, None))

    def sync_closed(self, name: str) -> None:
        self._sync(self._found(name), self._begin("sync_closed"))

    def sync_directory(self) -> None:
        self._fail_if_told(self._begin("sync_directory"))
        for change in self._changes:
            change.apply(self._durable_names)
        self._changes = []

    def write_hint(self, data: bytes) -> None:
        self._fail_if_told(self._begin("hint"))
        if "durable.hint" not in self._names:
            self._change(_Change("durable.hint", _File()))
        self._names["durable.hint"].put(0, bytes(data))

    def size_bytes(self, name: str) -> int:
        return len(self._found(name).cache)

    def free_bytes(self) -> int:
        return self.free

    def shut(self) -> None:
        self.is_shut = True

    # what a failure leaves behind

    def after_power_loss(self, mode: PowerLoss, seed: int) -> "SimulatedDisk":
        """One possible image of the disk once power is back."""
        image = SimulatedDisk(seed)
        names = dict(self._durable_names)
        for change in _surviving(self._changes, mode, image.random):
            change.apply(names)
        kept: dict[int, _File] = {}
        for name, file in names.items():
            if id(file) not in kept:
                survivor = _File()
                survivor.cache = survivor.durable = image._persisted(file, mode)
                kept[id(file)] = survivor
            image._names[name] = kept[id(file)]
        image._durable_names = dict(image._names)
        return image

    def after_kill(self, seed: int) -> "SimulatedDisk":
        """The process is dead; what the kernel was given is still there, durable or not."""
        image = SimulatedDisk(seed)
        twins: dict[int, _File] = {}

        def twin(file: _File) -> _File:
            if id(file) not in twins:
                twins[id(file)] = file.copy()
            return twins[id(file)]

        image._names = {name: twin(file) for name, file in self._names.items()}
        image._durable_names = {name: twin(file) for name, file in self._durable_names.items()}
        image._changes = [
            _Change(c.name, None if c.file is None else twin(c.file), c.gone) for c in self._changes
        ]
        return image

    # damage, for tests of the refusals

    def overwrite(self, name: str, data: bytes) -> None:
        """Rot or an operator's hand: the file says this now, durably."""
        file = _File()
        file.cache = file.durable = bytes(data)
        self._names[name] = self._durable_names[name] = file

    def lose(self, name: str) -> None:
        """The file is gone, durably."""
        self._names.pop(name)
        self._durable_names.pop(name, None)

    def _found(self, name: str) -> _File:
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, "simulated", name)
        return self._names[name]

    def _begin(self, kind: str) -> Fault | None:
        self.operations += 1
        if self.crash_at is not None and self.operations >= self.crash_at:
            raise Crash
        self.log.append(kind)
        if self.on_operation is not None:
            self.on_operation(kind)
        if self.is_read_only and kind != "sync":
            raise OSError(errno.EROFS, "simulated")
        return self.faults.get(self.operations)

    def _fail_if_told(self, fault: Fault | None) -> None:
        if fault in ("EIO", "ENOSPC"):
            raise OSError(getattr(errno, fault), "simulated")

    def _change(self, change: _Change) -> None:
        change.apply(self._names)
        self._changes.append(change)

    def _persisted(self, file: _File, mode: PowerLoss) -> bytes:
        """What the disk holds of a file when this much of the unsynced data made it there."""
        if mode == "nothing" or not file.unsynced:
            return file.durable
        disk = bytearray(file.durable)
        if mode == "everything":
            for offset, data in file.unsynced:
                _put(disk, offset, data)
        elif mode == "prefix":
            left = self.random.randrange(sum(len(data) for _, data in file.unsynced) + 1)
            for offset, data in file.unsynced:
                _put(disk, offset, data[:left])
                left -= min(left, len(data))
        else:
            self._put_some_sectors(disk, file.unsynced)
        return bytes(disk)

    def _put_some_sectors(self, disk: bytearray, unsynced: list[tuple[int, bytes]]) -> None:
        kept_share = self.random.choice((0.1, 0.5, 0.9))
        torn_share = self.random.choice((0.0, 0.3))
        for offset, data in unsynced:
            at = 0
            while at < len(data):
                end = min(len(data), at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES)
                if self.random.random() < kept_share:
                    torn = self.random.random() < torn_share
                    stop = self.random.randrange(at, end + 1) if torn else end
                    _put(disk, offset + at, data[at:stop])
                at = end
        if self.random.random() < 0.5:  # the size may be on the disk before the data is: zeros
            size = max(offset + len(data) for offset, data in unsynced)
            _put(
                disk,
                min(len(disk), size),
                bytes(max(0, self.random.randrange(size + 1) - len(disk))),
            )


def _surviving(changes: list[_Change], mode: PowerLoss, source: random.Random) -> Iterable[_Change]:
    match mode:
        case "nothing":
            return ()
        case "everything":
            return changes
        case "prefix":
            return changes[: source.randrange(len(changes) + 1)]
        case "subset":  # file systems reorder what is not synced
            return [change for change in changes if source.random() < 0.5]


def _put(disk: bytearray, offset: int, data: bytes) -> None:
    if not data:
        return
    if len(disk) < offset:
        disk += bytes(offset - len(disk))
    disk[offset : offset + len(data)] = data

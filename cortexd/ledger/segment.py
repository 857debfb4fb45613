"""One file of the journal, from its birth under a temporary name to its close.

It owns the bytes of a segment that this process created: no other is ever written to. It knows
nothing of what the lines mean, nor what to do when the disk fails: OSError goes to the caller.
"""

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Self

from cortexd.ledger.disk import Disk
from cortexd.ledger.entries import Entry, Snapshot
from cortexd.ledger.records import Header, encode_entries, encode_header, encode_snapshot

TEMPORARY_SUFFIX = ".tmp"

_NAME = re.compile(r"seg-(\d{8,})\.jsonl")


def segment_name(number: int) -> str:
    """`segment_name(7) == "seg-00000007.jsonl"`."""
    return f"seg-{number:08d}.jsonl"


def segment_numbers(names: Iterable[str]) -> list[int]:
    """The numbers of all segments among the names of a directory, in order."""
    return sorted(int(found[1]) for found in map(_NAME.fullmatch, names) if found)


class Segment:
    """A segment that is being written. All methods block."""

    def __init__(self, disk: Disk, file: int, header: Header, begun: bytes) -> None:
        self._disk = disk
        self._file = file
        self._salt = bytes.fromhex(header.salt)
        self._hash = blake2b(begun, digest_size=16)
        self.header = header
        self.name = segment_name(header.seg)
        self.size_bytes = self._begun_bytes = len(begun)

    @classmethod
    def begin(cls, disk: Disk, header: Header, snapshot: Snapshot) -> Self:
        """Write header and snapshot, and give them their name once they are durable.

        When this returns, the name is durable too. Raises OSError, also when the directory holds
        a segment with this number or a higher one: then somebody else writes there.
        """
        name = segment_name(header.seg)
        present = segment_numbers(disk.names())
        if present and present[-1] >= header.seg:
            raise FileExistsError(f"{name} or a later segment appeared, which is not ours")
        begun = encode_header(header) + encode_snapshot(snapshot, salt=bytes.fromhex(header.salt))
        file = disk.create(name + TEMPORARY_SUFFIX)
        try:
            _write_all(disk, file, begun)
            disk.sync(file)
            disk.rename(name + TEMPORARY_SUFFIX, name)
            disk.sync_directory()
        except OSError:
            disk.close(file)
            raise
        return cls(disk, file, header, begun)

    def append(self, entries: Iterable[Entry], *, n: int, durable_n: int) -> None:
        """Write entries that follow number `n`; `durable_n` is the watermark. Not yet durable."""
        lines = encode_entries(entries, salt=self._salt, n=n, durable_n=durable_n)
        _write_all(self._disk, self._file, lines)
        self._hash.update(lines)
        self.size_bytes += len(lines)

    def sync(self) -> None:
        """Return once everything that was appended is durable."""
        self._disk.sync(self._file)

    def close(self) -> None:
        """Give the file back. Nothing is synced."""
        self._disk.close(self._file)

    def is_full(self, entries_bytes_max: int) -> bool:
        """Whether the entries take up so much, or as much as the snapshot if that is larger.

        The snapshot is written with every segment and read with it: were it counted, books larger
        than the limit would have each batch begin a segment; so it is half of it at the most.
        """
        return self.size_bytes - self._begun_bytes >= max(entries_bytes_max, self._begun_bytes)

    def digest(self) -> str:
        """What `records.digest` says of the file now."""
        return self._hash.hexdigest()


def _write_all(disk: Disk, file: int, data: bytes) -> None:
    while data:
        taken = disk.write(file, data)
        if not taken:
            raise OSError("the disk takes no more bytes and gives no reason")
        data = data[taken:]

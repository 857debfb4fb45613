"""The journal as an auditor reads it: from the files alone, without any code of the ledger.

Knows of journal format 2 what its page in the manual says: a line is a checksum, a tab and a JSON
object; a segment begins with a header and a snapshot; each header names the digest of the segment
before it. Segments are read once: nothing is ever appended to one that is not the newest.
"""

import json
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path

Line = Mapping[str, object]


class BrokenJournal(AssertionError):
    """A file of the journal is not what a crash can leave behind."""


class JournalReader:
    """Reads the segments that were begun since the last time, to be called while no daemon runs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.segments_read = 0
        self.torn_tails = 0
        self._last_n = 0
        self._last_digest = ""

    def new_entries(self) -> Iterator[Line]:
        """All entries since the last time, in order; a torn line at a segment's end is none."""
        while True:
            path = self.directory / f"seg-{self.segments_read + 1:08}.jsonl"
            if not path.exists():
                return
            self.segments_read += 1
            yield from self._segment(path)

    def _segment(self, path: Path) -> Iterator[Line]:
        data = path.read_bytes()
        lines = data.split(b"\n")
        header = json.loads(lines[0].partition(b"\t")[2])
        salt = bytes.fromhex(str(header["salt"]))
        expect(header["prev"] == self._last_digest, f"{path.name} is not chained to its elder")
        expect(header["n"] == self._last_n, f"{path.name} begins after {header['n']}")
        self._last_digest = blake2b(data, digest_size=16).hexdigest()
        for number, line in enumerate(lines[:-1], start=1):
            payload = line[17:]
            proof = blake2b(payload, digest_size=8, key=salt).hexdigest().encode()
            expect(line[:17] == proof + b"\t", f"{path.name}: line {number} is not proven")
            if number > 2:
                entry = json.loads(payload)
                self._last_n += 1
                expect(entry["n"] == self._last_n, f"{path.name}: line {number}: a gap")
                expect(entry["d"] < entry["n"], f"{path.name}: line {number} vouches for itself")
                yield entry
        self.torn_tails += bool(lines[-1])


def expect(holds: bool, what: str) -> None:
    """Raise `BrokenJournal` unless it holds."""
    if not holds:
        raise BrokenJournal(what)

"""What a segment says after a crash, a power loss, or rot.

Owns the decision between "the unsynced tail was torn, which is normal" and "durable data is
damaged, which nobody may paper over". Refuses to know files: it is given a segment's bytes and the
hint, and returns the accounts or says where and why it will not.
"""

# Theory of operation
# ===================
#
# Position proves nothing. Sectors of an unsynced tail reach the disk in any order, so good lines
# after a hole are normal; and rot can sit in the last line. What proves something is the watermark:
# every entry carries the number up to which entries were durable when it was written, and the hint
# carries the newest. The rules, at the first line at which the sequence breaks (it is not proven by
# its checksum, or its number is not the next), n being the last good number:
#
#   1. It is the last line, and proven but for its final byte: its line feed rotted. Take it.
#   2. It, or any line after it, is proven and knows of a durable number > n. Refuse.
#   3. The hint names a newer segment, or a number > n in this one. Refuse.
#   4. From there on there is a NUL (a sector that was never written) or the file does not end in a
#      line feed (a write that was cut short): a torn tail, which nobody was ever told is durable.
#      Drop it from there on, whatever good lines it has.
#   5. Anything else is damage of a kind that a crash cannot do. Refuse.
#
# Rule 3 holds also where no line is bad: a lost end of the file looks like nothing at all. Header
# and snapshot are synced before a segment gets its name, so that damage there is always refused;
# and a line that is proven, but says what this version does not know or what cannot have happened,
# is not damage but somebody else's journal: refused, too; and in its own words where the header
# says that all of it is in another format.
#
# Rule 1 stands before 2 and 3 since the line is then good, and a watermark is judged against the
# number that it brings.

from collections.abc import Iterator, Sequence

import msgspec

from cortexd.ledger.accounts import Accounts, BrokenBooks
from cortexd.ledger.entries import Entry
from cortexd.ledger.records import (
    Header,
    Hint,
    Misread,
    OtherFormat,
    Place,
    header_of,
    place_of,
    proven,
    prover,
    run_of,
    snapshot_of,
)
from cortexd.ledger.reservations import IllegalEntry
from cortexd.ledger.windows import BUCKETS

# Lines that are read together: some hundreds, which is little memory, and all that a processor's
# cache can hold.
_RUN_BYTES = 32 << 10


class Torn(msgspec.Struct, frozen=True):
    """The unsynced tail that was dropped: `size_bytes` from `offset` on, which is line `line`."""

    offset: int
    size_bytes: int
    line: int


class Recovered(msgspec.Struct, frozen=True):
    """A segment read to its end. `n`: number of the last entry in `accounts`.

    `torn`: what was dropped behind it, if anything. Nothing of that was ever acknowledged.
    """

    header: Header
    accounts: Accounts
    n: int
    torn: Torn | None


class Corrupt(Exception):
    """A segment that must not be believed: going on would lose spend that was acknowledged.

    `offset` and `line`: where in the file (bytes from 0, lines from 1). `n`: number of the last
    good entry (0: none). `watermark`: highest number that a line behind it knows to be durable.
    `hint`: what the hint file says.
    """

    def __init__(
        self,
        reason: str,
        *,
        offset: int,
        line: int,
        n: int,
        watermark: int | None = None,
        hint: Hint | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset
        self.line = line
        self.n = n
        self.watermark = watermark
        self.hint = hint

    def __str__(self) -> str:
        hint = "none" if self.hint is None else f"segment {self.hint.seg}, entry {self.hint.n}"
        return (
            f"line {self.line} (byte {self.offset}): {self.reason}; last good entry: {self.n}, "
            f"known durable further on: {self.watermark}, durable by the hint: {hint}"
        )


def replay(data: bytes, hint: Hint | None = None, *, buckets: int = BUCKETS) -> Recovered:
    """Read a whole segment. Raises Corrupt where the rules above say "refuse", and OtherFormat.

    `data`: the newest segment's bytes. `hint`: what `decode_hint` made of the hint file.
    """
    reading = Reading(data, hint)
    header = reading.header()
    accounts = reading.snapshot(buckets=buckets)
    for entry in reading.entries():
        try:
            accounts.apply(entry)
        except IllegalEntry as error:
            raise reading.corrupt(str(error)) from error
    torn = reading.rest()
    return Recovered(header=header, accounts=accounts, n=reading.n, torn=torn)


class _Stretch(msgspec.Struct, frozen=True):
    """Lines whose entries are being given: the first is `line`, at `offset`, behind entry `n`.

    `lines` may go on with others. `watermarks`: of these entries.
    """

    n: int
    line: int
    offset: int
    lines: Sequence[bytes] = ()
    watermarks: Sequence[int] = ()


class Reading:
    """One pass over a segment: header, snapshot, entries, rest, to be asked for in this order."""

    def __init__(self, data: bytes, hint: Hint | None) -> None:
        self._data = data
        self._hint = hint
        self._seg = 0
        self._salt = b""
        self._prove = prover(b"")
        # The entries that are being given, and how many of them have been judged.
        self._given = _Stretch(n=0, line=1, offset=0)
        self._good = 0

    @property
    def n(self) -> int:
        """Number of the last good entry."""
        return self._given.n + self._good

    @property
    def place(self) -> Place:
        """Where the entry stands that is being judged."""
        return Place(self.n + 1, self._given.watermarks[self._good])

    @property
    def line(self) -> int:
        """Number, from 1, of the line behind the last good one."""
        return self._given.line + self._good

    @property
    def offset(self) -> int:
        """Where that line begins."""
        return self._given.offset + sum(map(len, self._given.lines[: self._good])) + self._good

    def header(self) -> Header:
        """Read the first line, which says how to read the others. Raises OtherFormat."""
        line = self._terminated_line()
        try:
            header = header_of(line)
        except OtherFormat:
            raise
        except Misread as error:
            raise self.corrupt(str(error)) from error
        if header is None:
            raise self.corrupt("the header is damaged")
        self._seg = header.seg
        self._salt = bytes.fromhex(header.salt)
        self._prove = prover(self._salt)
        self._given = _Stretch(header.n, 2, len(line) + 1)
        return header

    def snapshot(self, *, buckets: int) -> Accounts:
        """Read the second line: the state before the first entry."""
        line = self._terminated_line()
        try:
            snapshot = snapshot_of(line, self._salt)
            if snapshot is None:
                raise self.corrupt("the snapshot is damaged")
            accounts = Accounts.load(snapshot, buckets=buckets)
        except (Misread, BrokenBooks) as error:
            raise self.corrupt(str(error)) from error
        self._given = _Stretch(self.n, 3, self.offset + len(line) + 1)
        return accounts

    def entries(self) -> Iterator[Entry]:
        """Give the entries in turn, up to the line at which the sequence breaks.

        An entry counts as good (in `n`, `line` and `offset`) when the next one is asked for, so
        that `corrupt` names its line for as long as the caller judges it.
        """
        while True:
            try:
                entries = self._next_run()
            except Misread as error:
                raise self.corrupt(str(error)) from error
            if not entries:
                return
            for self._good, entry in enumerate(entries):
                yield entry
            self._good = len(entries)

    def rest(self) -> Torn | None:
        """Judge what follows the last good line: nothing, a torn tail, or damage."""
        tail = self._data[self.offset :]
        watermark = self._watermark_in(tail)
        if watermark is not None and watermark > self.n:
            raise self.corrupt("damage inside durable data", watermark)
        if self._hint is not None and not self._is_within(self._hint):
            raise self.corrupt("entries that were durable are missing", watermark)
        if not tail:
            return None
        if b"\0" in tail or not tail.endswith(b"\n"):
            return Torn(offset=self.offset, size_bytes=len(tail), line=self.line)
        raise self.corrupt("damage that is not the mark of a torn write", watermark)

    def corrupt(self, reason: str, watermark: int | None = None) -> Corrupt:
        """What to raise about the line here. `watermark`: as in `Corrupt`."""
        return Corrupt(
            reason,
            offset=self.offset,
            line=self.line,
            n=self.n,
            watermark=watermark,
            hint=self._hint,
        )

    def _next_run(self) -> list[Entry]:
        """Go on behind the last good line; none if the sequence breaks there. Raises Misread."""
        given = self._given = _Stretch(self.n, self.line, self.offset)
        self._good = 0
        lines = self._lines_at(given.offset)
        found = run_of(self._prove(lines), given.n + 1)
        self._given = _Stretch(given.n, given.line, given.offset, lines, found.watermarks)
        return found.entries

    def _lines_at(self, begin: int) -> list[bytes]:
        """Some of the lines from there on, without their LFs."""
        data = self._data
        end = data.rfind(b"\n", begin, begin + _RUN_BYTES)
        if end < 0:
            end = data.find(b"\n", begin)
        if end < 0:
            return [data[begin:-1]]  # no line feed follows, or it rotted: rule 1
        return data[begin:end].split(b"\n")

    def _terminated_line(self) -> bytes:
        """The line here without its LF; b"" where the file ends before the LF."""
        begin = self.offset
        end = self._data.find(b"\n", begin)
        return b"" if end < 0 else self._data[begin:end]

    def _watermark_in(self, tail: bytes) -> int | None:
        payloads = (proven(line, self._salt) for line in tail.split(b"\n"))
        places = (place_of(payload) for payload in payloads if payload is not None)
        return max((place.d for place in places if place is not None), default=None)

    def _is_within(self, hint: Hint) -> bool:
        return hint.seg < self._seg or (hint.seg == self._seg and hint.n <= self.n)

"""A ledger's directory as a bystander reads it: without its lock, and while its owner writes on.

Owns the order of looking, in which nothing that a running daemon does meanwhile looks like damage;
and the way from segments to entries with what was reserved for them. Refuses to change anything,
and to judge: `recovery.py` knows what a segment says, `verifying.py` what it should say.
"""

# Theory of operation
# ===================
#
# The owner appends to the newest segment, begins further ones, and takes the oldest away. What a
# bystander sees is sound if it looks in this order: the hint, the names, then each file once.
#
# - A segment that had a successor when the names were read is never written to again.
# - The newest of them is read up to wherever its owner was just then, in the middle of a line
#   perhaps, which looks as a torn tail does. Later segments are left alone.
# - The hint was written before the names were read: it can only speak of entries that were already
#   in these files. Read after them it would promise entries that were not.
# - A file that is gone when its turn comes was taken away for its age if all that are left are
#   younger; else somebody lost it.

from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from cortexd.ledger.chain import Finding
from cortexd.ledger.disk import HINT_NAME
from cortexd.ledger.entries import (
    CloseEntry,
    Entry,
    GhostEntry,
    HoldEntry,
    OpenReservation,
    ReservationId,
)
from cortexd.ledger.opening import all_lost, foreign, replayed
from cortexd.ledger.records import Header, Hint, Misread, OtherFormat, decode_hint, header_of
from cortexd.ledger.recovery import Corrupt, Reading, Recovered
from cortexd.ledger.segment import segment_name, segment_numbers
from cortexd.ledger.windows import BUCKETS

_LOOKS_MAX = 10
_HEADER_BYTES_MAX = 4096


class Folder(Protocol):
    """The directory, to be read only. Every operation may raise OSError."""

    def names(self) -> list[str]:
        """All file names."""

    def read(self, name: str, bytes_max: int | None = None) -> bytes:
        """A file, or its first so many bytes. FileNotFoundError where there is none (any more)."""


class Files(msgspec.Struct, frozen=True):
    """What was there at one look. `hint` is not newer than the segments `numbers`, in order."""

    hint: Hint | None
    numbers: tuple[int, ...]


class Newest(msgspec.Struct, frozen=True):
    """The newest segment, read as a start of the daemon would read it."""

    number: int
    recovered: Recovered


def look(folder: Folder) -> Files:
    """Look at the directory, in the order that a running daemon cannot confuse."""
    hint = None
    if HINT_NAME in folder.names():
        hint = decode_hint(folder.read(HINT_NAME))
    numbers = segment_numbers(folder.names())
    for _ in range(_LOOKS_MAX):
        # A directory that is changed while it is listed may keep a name to itself.
        again = segment_numbers(folder.names())
        if again == numbers:
            break
        numbers = again
    return Files(hint, tuple(numbers))


def unreadable(folder: Folder, number: int, error: OSError) -> Finding | None:
    """What is wrong where a segment cannot be read: nothing, if it was too old to be kept."""
    if not isinstance(error, FileNotFoundError):
        return Finding(segment_name(number), f"cannot be read: {error.strerror}")
    left = segment_numbers(folder.names())
    if left and number < left[0]:
        return None
    return Finding(segment_name(number), "the file is missing")


def read_newest(folder: Folder, *, where: str) -> Newest | None:
    """The state that a start would find; None where there is no ledger yet.

    `where` names the directory in problems. Raises the same `LedgerProblem` as a start would.
    """
    files = look(folder)
    if not files.numbers:
        if files.hint is not None:
            raise all_lost(files.hint, where=where)
        return None
    number = files.numbers[-1]
    data = folder.read(segment_name(number))
    return Newest(number, replayed(data, files.hint, files.numbers, where=where))


def newest_header(folder: Folder) -> Header | None:
    """First line of the newest segment; None where there is none that can be read."""
    numbers = look(folder).numbers
    return _header(folder, numbers[-1]) if numbers else None


class Line(msgspec.Struct, frozen=True, gc=False):
    """One entry of the journal. `held`: for what is about a reservation, how it was made."""

    n: int
    entry: Entry
    held: HoldEntry | None


def read_entries(
    folder: Folder,
    found: Callable[[Finding], None],
    *,
    where: str = "ledger",
    since_ms: int = 0,
    until_ms: int | None = None,
) -> Iterator[Line]:
    """All entries in order, of which those before `since_ms` and from `until_ms` on are left out.

    One segment is in memory at a time. Where a segment is damaged, `found` is told, and the entries
    go on with the next segment. Raises `LedgerProblem` at one in another format; `where` names the
    directory in it.
    """
    numbers = look(folder).numbers
    for number in numbers[_first_needed(folder, numbers, since_ms) :]:
        name = segment_name(number)
        try:
            data = folder.read(name)
        except OSError as error:
            obstacle = unreadable(folder, number, error)
            if obstacle is not None:
                found(obstacle)
            continue
        reading = Reading(data, None)
        try:
            header = reading.header()
            if until_ms is not None and header.lt >= until_ms:
                return
            holds = reading.snapshot(buckets=BUCKETS).reservations()
            for line in _lines(reading, {hold.reservation_id: _made(hold) for hold in holds}):
                if until_ms is not None and line.entry.t >= until_ms:
                    return
                if line.entry.t >= since_ms:
                    yield line
            reading.rest()
        except OtherFormat as error:
            raise foreign(f"{where}/{name}", error) from error
        except Corrupt as error:
            found(Finding(name, str(error), error.line, error.offset))


def _lines(reading: Reading, held: dict[ReservationId, HoldEntry]) -> Iterator[Line]:
    for entry in reading.entries():
        made = None
        if isinstance(entry, HoldEntry):
            made = held[entry.i] = entry
        elif isinstance(entry, CloseEntry):
            made = held.pop(entry.i, None)
        elif isinstance(entry, GhostEntry):
            made = held.get(entry.i)
        yield Line(reading.place.n, entry, made)


def _made(found: OpenReservation) -> HoldEntry:
    return HoldEntry(
        found.since_ms, found.reservation_id, found.scopes, found.tokens, found.request_label
    )


def _first_needed(folder: Folder, numbers: tuple[int, ...], since_ms: int) -> int:
    """Index of the first segment with entries from `since_ms` on: no entry of a segment is later
    than the beginning of the next.
    """
    for index in reversed(range(len(numbers))):
        header = _header(folder, numbers[index])
        if header is not None and header.lt < since_ms:
            return index
    return 0


def _header(folder: Folder, number: int) -> Header | None:
    try:
        line, _, _ = folder.read(segment_name(number), _HEADER_BYTES_MAX).partition(b"\n")
        return header_of(line)
    except (OSError, Misread):
        return None

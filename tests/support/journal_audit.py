"""A ledger directory read from its files alone, without any code of the ledger.

Knows journal format 2: a line is a checksum, a tab, a JSON object. What it reads is what an auditor
would: which request reserved how much, and what it was charged in the end.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec


class Entry(msgspec.Struct, frozen=True):
    """One entry of the journal; fields as the format names them (t: ms, i: reservation, a: tokens,
    w: scopes, y: why).
    """

    k: str = ""
    t: int = 0
    i: int = 0
    a: int = 0
    w: tuple[str, ...] = ()
    rid: str = ""
    y: str = ""


class Booked(msgspec.Struct):
    """What became of one request, in tokens; `charged` and `why` are None while it is open."""

    reserved: int
    charged: int | None = None
    why: str | None = None


def entries_in(directory: Path) -> Iterator[Entry]:
    """All entries of all segments, in order; a line that was torn by a crash is no entry."""
    segments = sorted(directory.glob("seg-*.jsonl"))
    assert segments[0].name == "seg-00000001.jsonl", "the beginning is not there any more"
    for segment in segments:
        for line in segment.read_bytes().splitlines():
            try:
                yield msgspec.json.decode(line.partition(b"\t")[2], type=Entry)
            except msgspec.DecodeError:
                break  # nothing behind a torn line was ever acknowledged


def booked_in(directory: Path) -> Mapping[str, Booked]:
    """Request id -> what became of it. No request may be reserved, or charged, twice."""
    found: dict[str, Booked] = {}
    open_requests: dict[int, str] = {}
    for entry in entries_in(directory):
        if entry.k == "hold":
            assert entry.rid not in found, f"{entry.rid} was reserved twice"
            found[entry.rid] = Booked(entry.a)
            open_requests[entry.i] = entry.rid
        elif entry.k == "close":
            booked = found[open_requests.pop(entry.i)]
            booked.charged, booked.why = entry.a, entry.y
    return found


def most_counted(directory: Path, scope: str, window_ms: int) -> int:
    """The most tokens that were reserved or charged in any stretch of so many milliseconds.

    Looked at whenever something is reserved, since only then can it grow.
    """
    most = 0
    reserved: dict[int, int] = {}
    charges: deque[tuple[int, int]] = deque()
    for entry in entries_in(directory):
        if entry.k == "hold" and scope in entry.w:
            reserved[entry.i] = entry.a
            while charges and charges[0][0] <= entry.t - window_ms:
                charges.popleft()
            charged = sum(tokens for _, tokens in charges)
            most = max(most, sum(reserved.values()) + charged)
        elif entry.k == "close" and entry.i in reserved:
            del reserved[entry.i]
            charges.append((entry.t, entry.a))
    return most

"""How the segments of a journal hang together.

Owns what must hold between one file of a journal and the next, and the shape of a finding. Refuses
to read: it is given the facts of each segment.
"""

from collections.abc import Sequence
from itertools import pairwise

import msgspec

from cortexd.ledger.records import Header
from cortexd.ledger.segment import segment_name


class Finding(msgspec.Struct, frozen=True):
    """Something wrong with a file.

    `what`: all of it, for people. `line` (from 1) and `offset` (in bytes), where they are known.
    `invariant`: name of the broken one, or "" for damage. `hint`: what to do, where there is more
    to say than of any damage.
    """

    file: str
    what: str
    line: int | None = None
    offset: int | None = None
    invariant: str = ""
    hint: str = ""


class SegmentFacts(msgspec.Struct, frozen=True):
    """What the chain of segments is judged by.

    `header`: None where it cannot be read. `n`: number of the last good entry. `digest`: of all
    bytes. `line`, `offset`: just behind the last good entry; `rest_bytes`: how much follows there.
    `is_judged`: there is a finding about this segment that explains why its entries end early.
    """

    number: int
    header: Header | None = None
    n: int = 0
    digest: str = ""
    line: int = 1
    offset: int = 0
    rest_bytes: int = 0
    is_judged: bool = False


def check_chain(segments: Sequence[SegmentFacts]) -> list[Finding]:
    """I16 and I12: what is wrong between segments, the oldest first.

    A torn tail is fine in a closed segment: the one after it begins behind the last good entry.
    """
    findings: list[Finding] = []
    for older, newer in pairwise(segments):
        file = segment_name(newer.number)
        missing = range(older.number + 1, newer.number)
        findings += [
            _broken(segment_name(number), "the file is missing", None) for number in missing
        ]
        if newer.number != older.number + 1 or older.header is None or newer.header is None:
            continue
        before = len(findings)
        if older.n != newer.header.n and not older.is_judged:
            findings.append(_gap(older, newer.header))
        if newer.header.lt < older.header.lt:
            what = f"it begins at {newer.header.lt}, before its predecessor: {older.header.lt}"
            findings.append(_broken(file, what, 1, name="I12"))
        if newer.header.prev != older.digest and before == len(findings) and not older.is_judged:
            what = f"changed after {file} was begun: its digest is {older.digest}, was "
            older_file = segment_name(older.number)
            findings.append(_broken(older_file, what + newer.header.prev, None))
    return findings


def _gap(older: SegmentFacts, newer: Header) -> Finding:
    file = segment_name(older.number)
    if older.n > newer.n:
        what = f"it goes on to entry {older.n}, but the next segment begins after {newer.n}"
        return Finding(file, what, invariant="I16")
    kind = "damage" if older.rest_bytes else "the end of the file is missing"
    what = (
        f"line {older.line} (byte {older.offset}): {kind}; last good entry: {older.n}, but the "
        f"next segment begins after {newer.n}"
    )
    return Finding(file, what, older.line, older.offset, "I16", GAP_HINT)


GAP_HINT = (
    "What was spent is safe, the snapshot of the next segment has it; the history of the entries "
    "between is lost. A failing disk leaves this, and a loss of power soon after a crash"
)
"""What an operator should know of entries that are missing in a segment that is not the newest."""


def _broken(file: str, what: str, line: int | None, *, name: str = "I16") -> Finding:
    return Finding(file, what, line, 0 if line == 1 else None, name)

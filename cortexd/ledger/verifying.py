"""Whether a ledger's files say the truth, from the oldest segment that is kept to the newest.

Owns the walk over the segments, and the addition of everything from the entries up: each segment's
entries are applied to its own snapshot, held against the invariants, and have to give the snapshot
of the next segment. Refuses to change anything; what must hold stands in `invariants.py`, what a
start would refuse in `recovery.py`.
"""

from collections import defaultdict
from collections.abc import Sequence

import msgspec

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.chain import GAP_HINT, Finding, SegmentFacts, check_chain
from cortexd.ledger.disk import HINT_NAME
from cortexd.ledger.entries import CloseEntry, GhostEntry, HoldEntry, Snapshot
from cortexd.ledger.invariants import (
    BrokenInvariant,
    History,
    check_accounts,
    check_place,
    check_same,
)
from cortexd.ledger.opening import all_lost, damaged, foreign, misnamed
from cortexd.ledger.reading import Folder, look, unreadable
from cortexd.ledger.records import Header, Hint, OtherFormat, Place, digest
from cortexd.ledger.recovery import Corrupt, Reading, Torn, replay
from cortexd.ledger.reservations import IllegalEntry
from cortexd.ledger.segment import segment_name
from cortexd.ledger.windows import BUCKETS

FOLLOWED_MAX = 500_000
"""How many entries one history follows: it remembers every charge that still counts in a window, so
it begins afresh, from a snapshot that was found to be right, before that is too much to hold.
"""


class Verdict(msgspec.Struct, frozen=True):
    """What was checked, and what is wrong with it: nothing, if there are no `findings`.

    `segments`: the first and the last number, or None. `entries`: likewise, of those that were
    checked. `entry_count`, `holds`, `closes`, `ghosts`: how many of them. `balances`: how many caps
    were added up from the entries and found, or not, in the snapshot that follows. `notices`: what
    is worth knowing and is no fault.
    """

    segments: tuple[int, int] | None
    entries: tuple[int, int] | None
    entry_count: int
    holds: int
    closes: int
    ghosts: int
    balances: int
    size_bytes: int
    findings: tuple[Finding, ...]
    notices: tuple[Finding, ...]

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(folder: Folder, *, where: str, followed_max: int = FOLLOWED_MAX) -> Verdict:
    """Check everything that is kept of a ledger, also while a daemon works on it.

    `where` names the directory. Raises OSError where the directory itself cannot be read, and
    `LedgerProblem` at a segment in another format.
    """
    files = look(folder)
    inspection = _Inspection(where, followed_max, is_only=len(files.numbers) == 1)
    if not files.numbers and files.hint is not None:
        lost = all_lost(files.hint, where=where)
        inspection.findings.append(Finding(segment_name(files.hint.seg), lost.what, hint=lost.hint))
    for number in files.numbers:
        name = segment_name(number)
        try:
            data = folder.read(name)
        except OSError as error:
            obstacle = unreadable(folder, number, error)
            if obstacle is not None:
                inspection.findings.append(obstacle)
            inspection.forget()
            continue
        is_newest = number == files.numbers[-1]
        try:
            inspection.inspect(number, data, files.hint if is_newest else None, is_newest=is_newest)
        except OtherFormat as error:
            raise foreign(f"{where}/{name}", error) from error
    if files.numbers and files.hint is None:
        what = "missing or unreadable; it would tell if the end of the newest segment were lost"
        inspection.notices.append(Finding(HINT_NAME, what))
    return inspection.verdict(files.numbers)


class _Misnamed(Exception):
    """A file that holds another segment than its name says."""


class _Inspection:
    """The walk so far: what was counted and found, and where the last segment ended."""

    def __init__(self, where: str, followed_max: int, *, is_only: bool) -> None:
        self.findings: list[Finding] = []
        self.notices: list[Finding] = []
        self._where = where
        self._is_only = is_only
        self._followed_max = followed_max
        self._previous: SegmentFacts | None = None
        self._end: Snapshot | None = None  # what the previous segment adds up to, if it is whole
        self._history: History | None = None
        self._followed = 0
        self._entries: tuple[int, int] | None = None
        self._counts: defaultdict[type, int] = defaultdict(int)
        self._entry_count = self._balances = self._size_bytes = 0

    def forget(self) -> None:
        """There is a hole: the next segment stands for itself."""
        self._previous = self._end = self._history = None

    def inspect(self, number: int, data: bytes, hint: Hint | None, *, is_newest: bool) -> None:
        """Check one segment and how it goes on from the one before."""
        self._size_bytes += len(data)
        before = len(self.findings)
        reading = Reading(data, hint)
        header: Header | None = None
        accounts: Accounts | None = None
        torn: Torn | None = None
        try:
            header = reading.header()
            if header.seg != number:
                name, header = misnamed(header), None
                replay(data, hint)  # where that refuses, a start does not come to look at the name
                raise _Misnamed(name)
            accounts = reading.snapshot(buckets=BUCKETS)
            self._begin(number, reading, header, accounts.dump())
            self._follow(reading, header, accounts)
            torn = reading.rest()
            check_accounts(accounts)
        except Corrupt as error:
            self._add_damage(number, str(error), error.line, error.offset, is_newest=is_newest)
        except _Misnamed as error:
            self._add_damage(number, str(error), 1, 0, is_newest=is_newest)
        except BrokenInvariant as error:
            self._add_broken(number, reading, error)
        is_judged = len(self.findings) > before
        facts = SegmentFacts(
            number=number,
            header=header,
            n=reading.n,
            digest=digest(data),
            line=reading.line,
            offset=reading.offset,
            rest_bytes=0 if torn is None else torn.size_bytes,
            is_judged=is_judged,
        )
        if self._previous is not None:
            self.findings += check_chain([self._previous, facts])
        self._previous = facts
        self._end = None if is_judged or accounts is None else accounts.dump()
        if torn is not None:
            self._add_torn(number, reading, torn, is_newest=is_newest)

    def verdict(self, numbers: Sequence[int]) -> Verdict:
        """What came out, findings and notices in the order of the files."""
        return Verdict(
            segments=(numbers[0], numbers[-1]) if numbers else None,
            entries=self._entries,
            entry_count=self._entry_count,
            holds=self._counts[HoldEntry],
            closes=self._counts[CloseEntry],
            ghosts=self._counts[GhostEntry],
            balances=self._balances,
            size_bytes=self._size_bytes,
            findings=tuple(sorted(self.findings, key=_place_in_files)),
            notices=tuple(sorted(self.notices, key=_place_in_files)),
        )

    def _begin(self, number: int, reading: Reading, header: Header, snapshot: Snapshot) -> None:
        """The state at the beginning of a segment: is it what the previous one ended with?"""
        previous = self._previous
        if number == 1 and (header.n or header.prev):
            what = f"line 1 (byte 0): the first segment says that {header.n} entries were before it"
            self.findings.append(Finding(segment_name(number), what, 1, 0, "I16"))
        goes_on = (
            previous is not None
            and self._end is not None
            and (previous.number + 1, previous.n) == (number, header.n)
        )
        if goes_on and self._end is not None:
            self._balances += len(snapshot.limits)
            try:
                check_same(self._end, snapshot)
            except BrokenInvariant as error:
                what = (
                    f"line 2: the snapshot is not what {segment_name(number - 1)} adds up to (that "
                    f"before the snapshot's): {error}"
                )
                self.findings.append(Finding(segment_name(number), what, 2, None, error.name))
                goes_on = False
        if self._history is None or not goes_on or self._followed >= self._followed_max:
            self._history = History(snapshot)
            self._followed = 0

    def _follow(self, reading: Reading, header: Header, accounts: Accounts) -> None:
        """Apply every entry of a segment, and hold it against all that must hold."""
        assert self._history is not None, "a segment begins before it is followed"
        counts, follow, apply = self._counts, self._history.follow, accounts.apply
        first, place = reading.n, Place(header.n, header.n)
        try:
            for entry in reading.entries():
                check_place(place, reading.place)
                place = reading.place
                try:
                    apply(entry)
                except IllegalEntry as error:
                    raise reading.corrupt(str(error)) from error
                follow(entry)
                counts[type(entry)] += 1
        except BaseException:
            self._history = None
            raise
        finally:
            followed = reading.n - first
            self._followed += followed
            self._entry_count += followed
            if followed:
                self._entries = ((self._entries or (first + 1, 0))[0], reading.n)

    def _add_damage(
        self, number: int, what: str, line: int, offset: int, *, is_newest: bool
    ) -> None:
        """Damage. In the newest segment it is what a start refuses, and is told in its words."""
        file, hint = segment_name(number), GAP_HINT
        if is_newest:
            refusal = damaged(f"{self._where}/{file}", what, is_only=self._is_only)
            what, hint = refusal.what, refusal.hint
        self.findings.append(Finding(file, what, line, offset, hint=hint))

    def _add_broken(self, number: int, reading: Reading, error: BrokenInvariant) -> None:
        what = f"line {reading.line} (byte {reading.offset}): {error}"
        self.findings.append(
            Finding(segment_name(number), what, reading.line, reading.offset, error.name)
        )

    def _add_torn(self, number: int, reading: Reading, torn: Torn, *, is_newest: bool) -> None:
        says = (
            "a line that is being written now, or that a dying process left unfinished; the next "
            "start leaves it out"
            if is_newest
            else "what a dying process was just writing; nobody was told that it is durable, and "
            "it counts for nothing"
        )
        what = f"line {reading.line} (byte {torn.offset}): {torn.size_bytes} bytes of a torn tail: "
        file = segment_name(number)
        self.notices.append(Finding(file, what + says, reading.line, torn.offset))


def _place_in_files(finding: Finding) -> tuple[str, int]:
    return finding.file, -1 if finding.offset is None else finding.offset

"""What `verify` finds: every damage there can be, and nothing in a ledger that is as it was left.

For the newest segment it has to say what a start of the daemon says; so the daemon is asked too.
"""

import errno
import random
from collections.abc import Callable, Iterable

import msgspec
import pytest

from cortexd.ledger import accounts, verifying
from cortexd.ledger.disk import LedgerProblem
from cortexd.ledger.entries import CloseEntry, Entry, MarkEntry, ReservationId, Snapshot
from cortexd.ledger.invariants import Finding, History
from cortexd.ledger.lifetimes import Counters
from cortexd.ledger.records import (
    decode_hint,
    encode_entries,
    encode_header,
    encode_hint,
    encode_snapshot,
    header_of,
)
from cortexd.ledger.verifying import Verdict, verify
from tests.ledger.kept_ledger import kept_ledger, live, name, numbers, open_small, roll
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.test_crash_points import WAYS, Workload
from tests.ledger.workbench import HandClock, hold, open_journal, read_segment

NEWEST = 4


def verdict_on(disk: SimulatedDisk) -> Verdict:
    return verify(disk, where="ledger")


def found_in(disk: SimulatedDisk) -> Finding:
    """The one thing that is wrong."""
    verdict = verdict_on(disk)
    assert len(verdict.findings) == 1, verdict.findings
    return verdict.findings[0]


def refusal_of(disk: SimulatedDisk) -> str:
    """What a start says."""
    with pytest.raises(LedgerProblem) as caught:
        open_journal(disk)
    return str(caught.value)


def told(finding: Finding) -> str:
    return f"ledger/{finding.file}: {finding.what}. {finding.hint}"


def lines_of(disk: SimulatedDisk, number: int) -> list[bytes]:
    return disk.read(name(number)).splitlines(keepends=True)


def offset_of(disk: SimulatedDisk, number: int, line: int) -> int:
    """Where a line (from 1) begins."""
    return sum(map(len, lines_of(disk, number)[: line - 1]))


def flip(disk: SimulatedDisk, number: int, offset: int) -> None:
    data = bytearray(disk.read(name(number)))
    data[offset] ^= 1
    disk.overwrite(name(number), bytes(data))


# Nothing is wrong


def test_a_ledger_with_a_past_is_sound_and_all_of_it_is_checked() -> None:
    disk, _ = kept_ledger()
    verdict = verdict_on(disk)
    assert verdict.findings == ()
    assert verdict.segments == (1, NEWEST)
    assert verdict.entries == (1, verdict.entry_count)
    assert verdict.size_bytes == sum(len(disk.read(name(number))) for number in numbers(disk))
    entries = [entry for n in numbers(disk) for _, entry in read_segment(disk.read(name(n)))[2]]
    kinds = [type(entry).__name__ for entry in entries]
    assert verdict.entry_count == len(entries)
    assert (verdict.holds, verdict.closes, verdict.ghosts) == (
        *(kinds.count("HoldEntry"), kinds.count("CloseEntry")),
        kinds.count("GhostEntry"),
    )
    assert verdict.ghosts == 2
    assert verdict.balances == 2 * 3, "two caps in each snapshot but the first"


def test_a_torn_tail_of_a_closed_segment_is_a_notice_with_its_place() -> None:
    disk, _ = kept_ledger()
    [notice] = verdict_on(disk).notices
    line = len(lines_of(disk, 2))
    offset = offset_of(disk, 2, line)
    size = len(disk.read(name(2))) - offset
    assert (notice.file, notice.line, notice.offset) == (name(2), line, offset)
    assert f"line {line} (byte {offset}): {size} bytes of a torn tail" in notice.what


def test_a_line_that_is_just_being_written_is_a_notice() -> None:
    disk, _ = kept_ledger()
    disk.overwrite(name(NEWEST), disk.read(name(NEWEST))[:-9])
    verdict = verdict_on(disk)
    assert verdict.is_sound
    assert "is being written now" in verdict.notices[-1].what


def test_history_that_was_taken_away_for_its_age_is_not_missed() -> None:
    disk, _ = kept_ledger()
    disk.lose(name(1))
    verdict = verdict_on(disk)
    assert verdict.is_sound
    assert verdict.segments == (2, NEWEST)


def test_an_empty_directory_is_no_ledger_and_no_fault() -> None:
    verdict = verdict_on(SimulatedDisk())
    assert (verdict.segments, verdict.entries, verdict.findings) == (None, None, ())


def test_a_hint_that_is_missing_is_told() -> None:
    disk, _ = kept_ledger()
    disk.lose("durable.hint")
    verdict = verdict_on(disk)
    assert verdict.is_sound
    assert [notice.file for notice in verdict.notices] == ["durable.hint", name(2)]


@pytest.mark.parametrize("followed_max", [1, 10])
def test_a_history_that_begins_afresh_finds_the_same(followed_max: int) -> None:
    disk, _ = kept_ledger()
    again = verify(disk, where="ledger", followed_max=followed_max)
    assert again == verdict_on(disk)


@pytest.mark.parametrize(("followed_max", "histories"), [(1, 4), (10, 2), (10_000, 1)])
def test_no_history_is_followed_for_ever(
    followed_max: int, histories: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It remembers each charge that still counts: one that never began afresh would fill memory."""
    begun: list[Snapshot | None] = []

    class Counted(History):
        def __init__(self, start: Snapshot | None = None) -> None:
            begun.append(start)
            super().__init__(start)

    monkeypatch.setattr(verifying, "History", Counted)
    disk, _ = kept_ledger()
    assert verify(disk, where="ledger", followed_max=followed_max).is_sound
    assert len(begun) == histories


def test_sums_that_drift_are_found_also_where_no_snapshot_follows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bug of ours: what is charged is not counted. No line is wrong, no start would refuse."""
    disk, clock = SimulatedDisk(), HandClock()
    live(open_small(disk, clock.sources()), clock, 2)
    assert verdict_on(disk).is_sound

    def forget(scopes: Iterable[Counters], close: CloseEntry, *, reserved: int) -> None:
        pass

    monkeypatch.setattr(accounts, "count_charge", forget)
    found = found_in(disk)
    assert (found.file, found.invariant) == (name(1), "I2")
    assert "were spent" in found.what


def test_whatever_a_kill_leaves_behind_is_sound_before_and_after_the_next_start() -> None:
    workload = Workload(3, fault=False)
    workload.run(turns=6)
    kills = [image for index, (image, _) in enumerate(workload.images) if not index % len(WAYS)]
    assert len(kills) > 40
    for image in kills:
        assert verdict_on(image).findings == ()
        open_journal(image, times=workload.clock.sources())
        assert verdict_on(image).findings == ()


# Damage


@pytest.mark.parametrize("number", [1, 2, 3, NEWEST])
def test_a_flipped_bit_in_any_line_is_found_with_file_line_and_offset(number: int) -> None:
    disk, _ = kept_ledger()
    last = len(lines_of(disk, number))
    for line in range(1, last + 1):
        disk, _ = kept_ledger()
        offset = offset_of(disk, number, line)
        flip(disk, number, offset + len(lines_of(disk, number)[line - 1]) // 2)
        if number == 2 and line == last:
            assert "changed after seg-00000003.jsonl was begun" in found_in(disk).what
            continue
        found = found_in(disk)
        assert (found.file, found.line, found.offset) == (name(number), line, offset)
        assert f"line {line} (byte {offset}): " in found.what
        assert found.hint


def test_no_flipped_bit_anywhere_is_taken_for_sound() -> None:
    source = random.Random(5)
    disk, _ = kept_ledger()
    for _ in range(150):
        number = source.choice(numbers(disk))
        data = disk.read(name(number))
        at = source.randrange(len(data))
        rotten = bytearray(data)
        rotten[at] ^= 1 << source.randrange(8)
        disk.overwrite(name(number), bytes(rotten))
        # What has no line feed behind it is, rightly, read without one.
        is_last = number == NEWEST and at == len(data) - 1
        assert verdict_on(disk).is_sound == is_last, (number, at)
        disk.overwrite(name(number), data)


def drop(lines: list[bytes]) -> list[bytes]:
    return lines[:4] + lines[5:]


def double(lines: list[bytes]) -> list[bytes]:
    return lines[:5] + lines[4:]


def swap(lines: list[bytes]) -> list[bytes]:
    return [*lines[:4], lines[5], lines[4], *lines[6:]]


def cut(lines: list[bytes]) -> list[bytes]:
    return lines[:5]


def tear(lines: list[bytes]) -> list[bytes]:
    return [*lines[:5], lines[5][:20]]


def zero(lines: list[bytes]) -> list[bytes]:
    return [*lines[:5], bytes(len(lines[5])), *lines[6:]]


@pytest.mark.parametrize("number", [1, NEWEST])
@pytest.mark.parametrize("damage", [drop, double, swap, cut, tear, zero])
def test_lines_that_were_moved_lost_or_overwritten_are_found(
    damage: Callable[[list[bytes]], list[bytes]], number: int
) -> None:
    disk, _ = kept_ledger()
    whole = lines_of(disk, number)
    damaged = damage(whole)
    disk.overwrite(name(number), b"".join(damaged))
    found = found_in(disk)
    first = next(i for i, line in enumerate([*damaged, b""]) if line != whole[i]) + 1
    assert (found.file, found.line) == (name(number), first)
    assert found.offset == sum(map(len, whole[: first - 1]))


@pytest.mark.parametrize("damage", [drop, double, swap, cut, zero])
def test_damage_of_the_newest_segment_is_told_in_the_words_of_a_start(
    damage: Callable[[list[bytes]], list[bytes]],
) -> None:
    disk, _ = kept_ledger()
    disk.overwrite(name(NEWEST), b"".join(damage(lines_of(disk, NEWEST))))
    assert told(found_in(disk)) == refusal_of(disk)


@pytest.mark.parametrize("lines", [double, cut])
def test_damage_of_the_only_segment_is_told_in_the_words_of_a_start(
    lines: Callable[[list[bytes]], list[bytes]],
) -> None:
    disk, clock = SimulatedDisk(), HandClock()
    live(open_small(disk, clock.sources()), clock, 3)
    disk.overwrite(name(1), b"".join(lines(lines_of(disk, 1))))
    found = found_in(disk)
    assert "there is no other segment" in found.hint
    assert told(found) == refusal_of(disk)


def test_a_lost_newest_segment_is_told_in_the_words_of_a_start() -> None:
    disk, _ = kept_ledger()
    disk.lose(name(NEWEST))
    assert told(found_in(disk)) == refusal_of(disk)


def test_the_loss_of_every_segment_is_told_in_the_words_of_a_start() -> None:
    disk, _ = kept_ledger()
    for number in numbers(disk):
        disk.lose(name(number))
    assert told(found_in(disk)) == refusal_of(disk)


@pytest.mark.parametrize("hint", [True, False])
def test_a_segment_under_anothers_name_is_told_in_the_words_of_a_start(hint: bool) -> None:
    disk, _ = kept_ledger()
    disk.overwrite(name(NEWEST), disk.read(name(3)))
    if not hint:
        disk.lose("durable.hint")
    found = found_in(disk)
    assert told(found) == refusal_of(disk)
    assert ("the file says that it is segment 3" in found.what) != hint


def test_a_missing_segment_in_the_middle_is_named() -> None:
    disk, _ = kept_ledger()
    disk.lose(name(2))
    found = found_in(disk)
    assert (found.file, found.what) == (name(2), "the file is missing")


def test_the_loss_of_what_was_never_synced_is_a_fault_of_the_history_only() -> None:
    """A power loss soon after a crash takes the tail of a segment that the next one has read."""
    disk, clock = SimulatedDisk(), HandClock()
    journal = open_small(disk, clock.sources())
    hold(journal)
    open_small(disk, clock.sources())
    disk.overwrite(name(1), b"".join(lines_of(disk, 1)[:-1]))
    found = found_in(disk)
    assert "the end of the file is missing" in found.what
    assert "What was spent is safe" in found.hint


# Lies: every line proves itself, but they do not add up


def rewritten(
    disk: SimulatedDisk,
    number: int,
    *,
    entries: Callable[[list[Entry]], list[Entry]] = list,
    snapshot: Callable[[Snapshot], Snapshot] = lambda snapshot: snapshot,
    durable_ahead: int = 0,
    **header: object,
) -> None:
    """Write a segment again with other content, and sound checksums."""
    data = disk.read(name(number))
    head = header_of(data.split(b"\n")[0])
    assert head is not None
    n, begin, numbered = read_segment(data)
    salt = bytes.fromhex(head.salt)
    head = msgspec.structs.replace(head, **header)
    image = encode_header(head) + encode_snapshot(snapshot(begin), salt=salt)
    for entry in entries([entry for _, entry in numbered]):
        image += encode_entries([entry], salt=salt, n=n, durable_n=n + durable_ahead)
        n += 1
    disk.overwrite(name(number), image)


def test_a_snapshot_that_is_not_what_the_entries_add_up_to_is_found() -> None:
    def cheaper(snapshot: Snapshot) -> Snapshot:
        scope, lifetime = snapshot.life[0]
        less = msgspec.structs.replace(lifetime, uncertain=lifetime.uncertain + 1)
        return msgspec.structs.replace(snapshot, life=((scope, less), *snapshot.life[1:]))

    disk, _ = kept_ledger()
    rewritten(disk, NEWEST, snapshot=cheaper)
    found = found_in(disk)
    assert (found.file, found.line, found.invariant) == (name(NEWEST), 2, "I11")
    assert "not what seg-00000003.jsonl adds up to" in found.what


def test_an_entry_that_cannot_have_happened_is_told_in_the_words_of_a_start() -> None:
    def twice(entries: list[Entry]) -> list[Entry]:
        close = next(entry for entry in entries if isinstance(entry, CloseEntry))
        at = entries.index(close)
        return [*entries[: at + 1], close, *entries[at + 1 :]]

    disk, _ = kept_ledger()
    disk.lose("durable.hint")
    rewritten(disk, NEWEST, entries=twice)
    found = found_in(disk)
    assert "is closed but was not open" in found.what
    assert told(found) == refusal_of(disk)


def test_a_charge_that_contradicts_its_reason_is_found_with_its_line() -> None:
    def dear(entries: list[Entry]) -> list[Entry]:
        return [
            msgspec.structs.replace(entry, y="release") if isinstance(entry, CloseEntry) else entry
            for entry in entries
        ]

    disk, _ = kept_ledger()
    disk.lose("durable.hint")
    before = read_segment(disk.read(name(NEWEST)))[2]
    index = next(i for i, (_, entry) in enumerate(before) if isinstance(entry, CloseEntry))
    rewritten(disk, NEWEST, entries=dear)
    found = found_in(disk)
    assert (found.invariant, found.line) == ("I13", index + 3)
    assert found.offset == offset_of(disk, NEWEST, index + 3)


def test_an_entry_that_claims_to_be_durable_before_it_is_written_is_found() -> None:
    disk, _ = kept_ledger()
    disk.lose("durable.hint")
    rewritten(disk, NEWEST, durable_ahead=1)
    found = found_in(disk)
    assert (found.invariant, found.line) == ("I5", 3)


def test_a_segment_that_begins_before_its_predecessor_is_found() -> None:
    disk, _ = kept_ledger()
    rewritten(disk, NEWEST, lt=0)
    assert found_in(disk).invariant == "I12"


def test_a_first_segment_that_knows_of_an_earlier_one_is_found() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    open_small(disk, clock.sources())
    rewritten(disk, 1, prev="00")
    disk.lose("durable.hint")
    assert "the first segment says" in found_in(disk).what


def test_a_segment_of_another_ledger_with_fitting_numbers_is_found_by_its_digest() -> None:
    disk, _ = kept_ledger()
    rewritten(disk, 3, entries=lambda entries: [*entries[:-1], MarkEntry(entries[-1].t)])
    assert not verdict_on(disk).is_sound
    disk, _ = kept_ledger()
    rewritten(disk, 3, sw="somebody/1")
    found = found_in(disk)
    assert (found.file, found.invariant) == (name(3), "I16")
    assert "its digest is" in found.what


def test_the_findings_come_in_the_order_of_the_files() -> None:
    disk, _ = kept_ledger()
    flip(disk, NEWEST, offset_of(disk, NEWEST, 3) + 30)
    flip(disk, 1, offset_of(disk, 1, 4) + 30)
    found = verdict_on(disk).findings
    assert [(finding.file, finding.line) for finding in found] == [(name(1), 4), (name(NEWEST), 3)]


def test_what_only_the_next_segment_tells_of_a_file_comes_in_that_files_place() -> None:
    disk, _ = kept_ledger()
    rewritten(disk, 3, sw="somebody/1")
    flip(disk, NEWEST, offset_of(disk, NEWEST, 3) + 30)
    assert [each.file for each in verdict_on(disk).findings] == [name(3), name(NEWEST)]


# While it is looked at


class Busy:
    """A folder whose owner works: appends, rolls and takes old segments away at every look."""

    def __init__(self) -> None:
        self.disk, self.clock = kept_ledger()
        self.journal = open_small(self.disk, self.clock.sources())
        self.source = random.Random(9)
        self.gone = 0

    def names(self) -> list[str]:
        self.work()
        return self.disk.names()

    def read(self, wanted: str, bytes_max: int | None = None) -> bytes:
        self.work()
        return self.disk.read(wanted, bytes_max)

    def work(self) -> None:
        self.clock.now_ms += 5_000
        live(self.journal, self.clock, self.source.randrange(3))
        for found in self.journal.accounts.reservations()[:-2]:
            self.settle(found.reservation_id)
        if self.source.random() < 0.5:
            roll(self.journal)
        if self.source.random() < 0.3 and len(numbers(self.disk)) > 2:
            self.gone += 1
            self.disk.lose(name(numbers(self.disk)[0]))

    def settle(self, reservation_id: ReservationId) -> None:
        entry = CloseEntry(self.journal.clock.now_ms(), reservation_id, 1, "abort")
        self.journal.accounts.apply(entry)
        self.journal.append([entry])


def test_a_ledger_that_is_worked_on_all_the_while_is_sound_at_every_look() -> None:
    busy = Busy()
    for _ in range(8):
        verdict = verify(busy, where="ledger")
        assert verdict.findings == ()
        assert verdict.segments is not None
        assert verdict.entry_count
    assert busy.gone > 5
    assert numbers(busy.disk)[0] > 5


class Losing:
    """A folder in which one file is gone, or cannot be read, by the time that it is opened."""

    def __init__(self, lost: int, error: type[OSError], number: int) -> None:
        self.disk, _ = kept_ledger()
        self._lost = name(lost)
        self._error = error(number, "simulated")

    def names(self) -> list[str]:
        return self.disk.names()

    def read(self, wanted: str, bytes_max: int | None = None) -> bytes:
        if wanted == self._lost:
            raise self._error
        return self.disk.read(wanted, bytes_max)


@pytest.mark.parametrize(
    ("error", "number", "said"),
    [
        (FileNotFoundError, errno.ENOENT, "the file is missing"),
        (OSError, errno.EIO, "cannot be read: simulated"),
    ],
)
def test_a_segment_that_cannot_be_read_is_named(
    error: type[OSError], number: int, said: str
) -> None:
    verdict = verify(Losing(2, error, number), where="ledger")
    assert [(found.file, found.what) for found in verdict.findings] == [(name(2), said)]


def test_the_hint_is_what_was_durable_when_the_names_were_read() -> None:
    disk, _ = kept_ledger()
    hint = decode_hint(disk.read("durable.hint"))
    assert hint is not None
    ahead = msgspec.structs.replace(hint, n=hint.n + 10)
    disk.overwrite("durable.hint", encode_hint(ahead))
    assert "entries that were durable are missing" in found_in(disk).what

"""What a journal does where its disk has little room: history goes first, then callers wait."""

import logging

import pytest

from cortexd.ledger.journal import Journal, JournalFailed, JournalSettings, LedgerProblem
from cortexd.ledger.retention import Retention
from cortexd.ledger.segment import segment_name, segment_numbers
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import HandClock, hold, open_journal, salts

FOR_EVER = Retention(age_ms=0, size_bytes=0)
NEEDED_BYTES = 1 << 20
SECOND_MS = 1_000


class SmallDisk(SimulatedDisk):
    """A disk on which everything else takes so much that `spare_bytes` would be left without us."""

    def __init__(self, spare_bytes: int = 1 << 40) -> None:
        super().__init__()
        self.spare_bytes = spare_bytes

    def free_bytes(self) -> int:
        return self.spare_bytes - sum(self.size_bytes(name) for name in self.names())

    def leave(self, free_bytes: int) -> None:
        """Somebody else writes, until so much is free."""
        self.spare_bytes += free_bytes - self.free_bytes()


def settings(*, segment_bytes_max: int = 2_000) -> JournalSettings:
    return JournalSettings(
        retention=FOR_EVER,
        segment_bytes_max=segment_bytes_max,
        room_bytes_min=NEEDED_BYTES,
        new_salt=salts(),
    )


def grown(disk: SmallDisk, clock: HandClock, segments: int) -> Journal:
    journal = open_journal(disk, times=clock.sources(), chosen=settings())
    for _ in range(segments - 1):
        hold(journal)
        journal.prepare_roll()()
    return journal


def numbers(disk: SmallDisk) -> list[int]:
    return segment_numbers(disk.names())


def one_more(journal: Journal) -> None:
    hold(journal)
    journal.sync()


def test_history_goes_before_anybody_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "cortexd.ledger")
    disk, clock = SmallDisk(), HandClock()
    journal = grown(disk, clock, 10)
    sizes = [disk.size_bytes(segment_name(number)) for number in numbers(disk)]
    disk.leave(NEEDED_BYTES - sizes[0] - 1)
    clock.now_ms += SECOND_MS
    assert journal.has_room(), "history is room"
    assert journal.condition == "ok"
    assert numbers(disk) == [*range(1, 11)], "nothing is removed in the thread that serves"
    caplog.clear()
    one_more(journal)
    assert numbers(disk) == [*range(3, 11)], "and no more than had to"
    [warning] = caplog.records
    assert warning.levelno == logging.WARNING
    assert warning.getMessage().startswith(
        "event=ledger_history_gave_room directory=ledger first=seg-00000001.jsonl "
        f"last=seg-00000002.jsonl segments=2 bytes={sizes[0] + sizes[1]} action="
    )
    clock.now_ms += SECOND_MS
    assert journal.has_room()
    one_more(journal)
    assert len(caplog.records) == 1
    assert journal.disk_use().segments == 8


def test_no_sync_waits_for_many_removals() -> None:
    disk, clock = SmallDisk(), HandClock()
    journal = grown(disk, clock, 20)
    disk.leave(NEEDED_BYTES - sum(disk.size_bytes(segment_name(n)) for n in range(1, 11)))
    clock.now_ms += SECOND_MS
    assert journal.has_room()
    left = []
    for _ in range(4):
        one_more(journal)
        left.append(len(numbers(disk)))
    assert left == [16, 12, 10, 10]


def test_where_all_of_it_would_not_be_enough_history_stays_and_callers_wait() -> None:
    disk, clock = SmallDisk(), HandClock()
    journal = grown(disk, clock, 10)
    disk.leave(0)
    clock.now_ms += SECOND_MS
    assert not journal.has_room()
    assert journal.condition == "low_on_room"
    journal.sync()
    assert numbers(disk) == [*range(1, 11)]


def test_the_newest_two_never_make_room() -> None:
    disk, clock = SmallDisk(), HandClock()
    journal = grown(disk, clock, 3)
    oldest = disk.size_bytes(segment_name(1))
    disk.leave(NEEDED_BYTES - oldest)
    clock.now_ms += SECOND_MS
    assert journal.has_room()
    one_more(journal)
    assert numbers(disk) == [2, 3]
    disk.leave(NEEDED_BYTES - 1)
    clock.now_ms += SECOND_MS
    assert not journal.has_room()
    journal.sync()
    assert numbers(disk) == [2, 3]


def test_a_segment_that_cannot_be_removed_is_no_room(caplog: pytest.LogCaptureFixture) -> None:
    disk, clock = SmallDisk(), HandClock()
    journal = grown(disk, clock, 6)
    disk.leave(NEEDED_BYTES - 1)
    clock.now_ms += SECOND_MS
    assert journal.has_room()
    disk.on_operation = lambda kind: fail_next(disk) if kind == "remove" else None
    one_more(journal)
    one_more(journal)
    assert numbers(disk) == [*range(1, 7)]
    said = [line for line in caplog.messages if "ledger_history_stays" in line]
    assert len(said) == 1, "it is not tried with every sync"
    clock.now_ms += SECOND_MS
    assert not journal.has_room()


def fail_next(disk: SimulatedDisk) -> None:
    disk.faults[disk.operations] = "EIO"


def test_a_directory_that_cannot_be_synced_behind_it_ends_the_journal() -> None:
    disk, clock = SmallDisk(), HandClock()
    journal = grown(disk, clock, 6)
    disk.leave(NEEDED_BYTES - 1)
    clock.now_ms += SECOND_MS
    assert journal.has_room()
    disk.on_operation = lambda kind: fail_next(disk) if kind == "sync_directory" else None
    with pytest.raises(JournalFailed, match="syncing the directory"):
        one_more(journal)


def test_a_full_disk_with_history_on_it_does_not_prevent_a_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What a full disk ended is restarted on the room that its history gives."""
    disk, clock = SmallDisk(), HandClock()
    journal = grown(disk, clock, 60)
    missing = sum(disk.size_bytes(segment_name(number)) for number in range(1, 21))
    disk.leave(NEEDED_BYTES - missing)
    begun = []
    disk.on_operation = lambda kind: begun.append(numbers(disk)[0]) if kind == "create" else None
    again = open_journal(disk, times=clock.sources(), chosen=settings())
    assert begun == [21], "before the new segment needs room"
    kept = numbers(disk)
    assert kept == [*range(kept[0], 62)]
    assert 21 < kept[0] < 25, "and as much again as that one took"
    assert again.has_room()
    assert again.accounts.open_reservations == journal.accounts.open_reservations
    assert any("ledger_history_gave_room" in line for line in caplog.messages)


def test_a_start_that_cannot_make_room_is_a_problem_with_a_hint() -> None:
    disk, clock = SmallDisk(), HandClock()
    grown(disk, clock, 5)
    disk.leave(NEEDED_BYTES - 1)
    disk.on_operation = lambda kind: fail_next(disk) if kind == "sync_directory" else None
    with pytest.raises(LedgerProblem) as caught:
        open_journal(disk, times=clock.sources(), chosen=settings())
    assert caught.value.kind == "unusable"


def test_two_segments_have_to_fit_however_large_they_may_be() -> None:
    disk, clock = SmallDisk(), HandClock()
    large = settings(segment_bytes_max=NEEDED_BYTES)
    journal = open_journal(disk, times=clock.sources(), chosen=large)
    disk.leave(2 * NEEDED_BYTES)
    clock.now_ms += SECOND_MS
    assert journal.has_room()
    disk.leave(2 * NEEDED_BYTES - 1)
    clock.now_ms += SECOND_MS
    assert not journal.has_room()

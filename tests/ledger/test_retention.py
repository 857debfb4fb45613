"""Old segments go, the oldest first; no balance goes with them, and no crash leaves a gap."""

import logging
from pathlib import Path
from typing import get_args

import pytest

from cortexd.ledger.disk import DirectoryDisk, LedgerProblem
from cortexd.ledger.journal import Journal, JournalFailed
from cortexd.ledger.retention import DiskUse, Retention
from cortexd.ledger.segment import segment_name, segment_numbers
from tests.ledger.simulated_disk import Crash, PowerLoss, SimulatedDisk
from tests.ledger.workbench import CAPS, HandClock, hold, newest, open_journal, settings

DAY_MS = 86_400_000
TEN_DAYS = Retention(age_ms=10 * DAY_MS, size_bytes=0)
SMALL = Retention(age_ms=0, size_bytes=15_000)
FOR_EVER = Retention(age_ms=0, size_bytes=0)


def grown(journal: Journal, clock: HandClock, days: int) -> None:
    """A segment and a request a day."""
    for _ in range(days):
        clock.now_ms += DAY_MS
        hold(journal)
        journal.prepare_roll()()


def numbers(disk: SimulatedDisk) -> list[int]:
    return segment_numbers(disk.names())


def total_bytes(disk: SimulatedDisk) -> int:
    return sum(disk.size_bytes(segment_name(number)) for number in numbers(disk))


def test_a_segment_goes_once_its_last_entry_is_older_than_the_retention() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    journal = open_journal(disk, times=clock.sources(), chosen=settings(retention=TEN_DAYS))
    grown(journal, clock, 11)
    assert numbers(disk) == [*range(1, 13)], "the first was closed ten days ago, not more"
    clock.now_ms += 1
    journal.prepare_roll()()
    assert numbers(disk) == [*range(2, 14)]


def test_the_oldest_go_while_all_together_are_too_large() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    journal = open_journal(disk, times=clock.sources(), chosen=settings(retention=SMALL))
    grown(journal, clock, 30)
    kept = numbers(disk)
    assert kept == [*range(kept[0], 32)]
    assert len(kept) > 2
    assert total_bytes(disk) <= 15_000
    assert total_bytes(disk) + len(newest(disk)) > 15_000, "and no more than had to"


def test_the_newest_and_its_predecessor_stay_however_large_and_old_they_are() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    tiny = settings(retention=Retention(age_ms=1, size_bytes=1))
    journal = open_journal(disk, times=clock.sources(), chosen=tiny)
    grown(journal, clock, 5)
    assert numbers(disk) == [5, 6]
    clock.now_ms += 100 * DAY_MS
    open_journal(disk, times=clock.sources(), chosen=tiny)
    assert numbers(disk) == [6, 7]


def test_without_limits_everything_is_kept() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    chosen = settings(retention=FOR_EVER)
    grown(open_journal(disk, times=clock.sources(), chosen=chosen), clock, 90)
    assert numbers(disk) == [*range(1, 92)]


def test_no_balance_and_no_reservation_goes_with_the_history() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    tiny = settings(retention=Retention(age_ms=1, size_bytes=0))
    journal = open_journal(disk, times=clock.sources(), chosen=tiny)
    grown(journal, clock, 20)
    before = journal.accounts.dump()
    again = open_journal(disk.after_power_loss("nothing", seed=1), times=clock.sources())
    found = {each.reservation_id for each in again.accounts.reservations()}
    assert found == {each.reservation_id for each in before.holds}
    assert len(found) == 20
    assert again.accounts.dump().life == before.life


def test_what_was_kept_for_ever_goes_by_and_by_when_a_limit_is_set(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each removal is synced, and nobody should wait at start, or in a roll, for a thousand."""
    disk, clock = SimulatedDisk(), HandClock()
    journal = open_journal(disk, times=clock.sources(), chosen=settings(retention=FOR_EVER))
    grown(journal, clock, 100)
    with caplog.at_level(logging.INFO, "cortexd.ledger"):
        journal = open_journal(disk, times=clock.sources(), chosen=settings(retention=SMALL))
    assert numbers(disk) == [*range(65, 103)]
    removed = next(said for said in caplog.messages if "removed" in said)
    assert removed.startswith(
        "event=ledger_history_removed first=seg-00000001.jsonl last=seg-00000064.jsonl segments=64 "
    )
    journal.prepare_roll()()
    assert numbers(disk) == [*range(69, 104)]


def test_a_segment_that_cannot_be_removed_stays_and_stops_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk, clock = SimulatedDisk(), HandClock()
    tiny = settings(retention=Retention(age_ms=0, size_bytes=1))
    journal = open_journal(disk, times=clock.sources(), chosen=tiny)
    grown(journal, clock, 1)
    disk.on_operation = lambda kind: fail_next(disk) if kind == "remove" else None
    grown(journal, clock, 1)
    assert numbers(disk) == [1, 2, 3]
    assert journal.disk_use().segments == 3
    warning = next(each for each in caplog.records if "ledger_history_stays" in each.getMessage())
    assert warning.levelno == logging.WARNING
    assert "no balance depends on them" in warning.getMessage()
    disk.on_operation = None
    grown(journal, clock, 1)
    assert numbers(disk) == [3, 4], "the next roll tries again"


def fail_next(disk: SimulatedDisk) -> None:
    disk.faults[disk.operations] = "EIO"


def test_a_segment_that_was_moved_away_is_not_missed() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    tiny = settings(retention=Retention(age_ms=0, size_bytes=1))
    journal = open_journal(disk, times=clock.sources(), chosen=tiny)
    grown(journal, clock, 1)
    disk.lose("seg-00000001.jsonl")
    grown(journal, clock, 1)
    assert numbers(disk) == [2, 3]
    assert journal.disk_use().segments == 2


def test_where_a_header_rotted_the_next_one_tells_the_age() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    journal = open_journal(disk, times=clock.sources(), chosen=settings(retention=FOR_EVER))
    grown(journal, clock, 5)
    disk.overwrite("seg-00000002.jsonl", b"rot\n")
    disk.overwrite("seg-00000003.jsonl", b"cut in its header")
    clock.now_ms += 7 * DAY_MS
    journal = open_journal(disk, times=clock.sources(), chosen=settings(retention=TEN_DAYS))
    assert numbers(disk) == [*range(1, 8)], "segment 4 began nine days ago"
    clock.now_ms += DAY_MS + 1
    journal.prepare_roll()()
    assert numbers(disk) == [*range(4, 9)]


def test_where_no_header_can_be_read_segments_stay() -> None:
    class Unreadable(SimulatedDisk):
        def read(self, name: str, bytes_max: int | None = None) -> bytes:
            if bytes_max is not None:
                raise OSError("simulated")
            return super().read(name)

    disk, clock = Unreadable(), HandClock()
    journal = open_journal(disk, times=clock.sources(), chosen=settings(retention=TEN_DAYS))
    grown(journal, clock, 30)
    assert numbers(disk) == [*range(1, 32)]


def test_a_directory_that_cannot_be_synced_ends_the_journal() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    tiny = settings(retention=Retention(age_ms=0, size_bytes=1))
    journal = open_journal(disk, times=clock.sources(), chosen=tiny)
    grown(journal, clock, 1)
    removing: list[str] = []

    def fail_the_sync_behind(kind: str) -> None:
        if removing and kind == "sync_directory":
            fail_next(disk)
        removing[:] = [kind] if kind == "remove" else []

    disk.on_operation = fail_the_sync_behind
    with pytest.raises(JournalFailed, match="syncing the directory"):
        grown(journal, clock, 1)
    with pytest.raises(JournalFailed):
        journal.sync()


def test_at_start_such_a_directory_is_a_problem_with_a_hint() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    journal = open_journal(disk, times=clock.sources(), chosen=settings(retention=FOR_EVER))
    grown(journal, clock, 3)
    disk.on_operation = lambda kind: (
        fail_next(disk) if kind == "sync_directory" and disk.log[-2] == "remove" else None
    )
    with pytest.raises(LedgerProblem, match="syncing the directory"):
        open_journal(disk, times=clock.sources(), chosen=settings(retention=SMALL_AT_ONCE))


SMALL_AT_ONCE = Retention(age_ms=0, size_bytes=1)


def test_wherever_it_crashes_what_is_left_is_an_unbroken_row() -> None:
    """A removal that reached the disk before an older one would look like a lost segment."""
    crashes = 0
    for at in range(10_000):
        disk, clock = SimulatedDisk(seed=at), HandClock()
        journal = open_journal(disk, times=clock.sources(), chosen=settings(retention=FOR_EVER))
        grown(journal, clock, 4)
        disk.crash_at = disk.operations + 1 + at
        try:
            chosen = settings(retention=SMALL_AT_ONCE)
            grown(open_journal(disk, times=clock.sources(), chosen=chosen), clock, 2)
        except Crash:
            crashes += 1
        else:
            break
        images = [disk.after_kill(at)]
        images += [disk.after_power_loss(way, seed=at) for way in get_args(PowerLoss)]
        for image in images:
            kept = numbers(image)
            assert kept == [*range(kept[0], kept[-1] + 1)], (at, kept)
            again = open_journal(image, times=clock.sources(), chosen=settings(retention=FOR_EVER))
            assert len(again.accounts.reservations()) >= 4
    assert crashes > 30


def test_what_it_takes_on_the_disk_is_counted_without_looking() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    disk.free = 123 << 30
    for _ in range(3):
        journal = open_journal(disk, times=clock.sources(), chosen=settings(retention=SMALL))
        for _ in range(9):
            grown(journal, clock, 1)
            hold(journal)
            expected = DiskUse(len(numbers(disk)), total_bytes(disk), 123 << 30)
            assert journal.disk_use() == expected


def test_free_room_that_cannot_be_measured_is_unknown() -> None:
    class Mute(SimulatedDisk):
        def free_bytes(self) -> int:
            raise OSError("simulated")

    assert open_journal(Mute()).disk_use().free_bytes is None


def test_a_real_directory_is_counted_and_cleared_too(tmp_path: Path) -> None:
    for number in range(1, 7):
        journal = Journal.open(str(tmp_path), CAPS, retention_days=0, retention_bytes=0)
        assert journal.disk_use().segments == number
        journal.close()
    journal = Journal.open(str(tmp_path), CAPS, retention_days=1, retention_bytes=1)
    assert sorted(path.name for path in tmp_path.glob("seg-*")) == [
        "seg-00000006.jsonl",
        "seg-00000007.jsonl",
    ]
    use = journal.disk_use()
    assert use.size_bytes == sum(path.stat().st_size for path in tmp_path.glob("seg-*"))
    assert use.free_bytes is not None
    journal.close()


def test_of_a_real_file_only_its_beginning_is_read_where_that_is_enough(tmp_path: Path) -> None:
    disk = DirectoryDisk.open(str(tmp_path))
    (tmp_path / "seg").write_bytes(b"0123456789")
    assert disk.read("seg", 4) == b"0123"
    assert disk.read("seg", 99) == b"0123456789"
    disk.shut()


def test_books_larger_than_a_segment_do_not_make_every_batch_begin_one() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, chosen=settings(segment_bytes_max=500))
    for _ in range(50):
        hold(journal)
    journal.prepare_roll()()
    begun = len(newest(disk))
    assert begun > 2_000, "the snapshot alone is far larger than a segment may be"
    holds = 0
    while not journal.roll_is_due():
        hold(journal)
        holds += 1
    assert holds > 20
    assert len(newest(disk)) >= 2 * begun

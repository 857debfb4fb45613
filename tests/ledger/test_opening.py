"""What a directory says at start: torn tails are dropped, damage is refused, in plain words."""

import logging

import pytest

from cortexd.ledger.journal import JournalSettings, LedgerProblem
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import (
    HandClock,
    hold,
    newest,
    open_journal,
)

LF = b"\n"


def test_a_torn_tail_is_dropped_with_a_notice_and_kept_in_the_old_file(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    kept = hold(journal)
    journal.sync()
    hold(journal)
    torn = newest(disk)[:-20]
    disk.overwrite("seg-00000001.jsonl", torn)
    with caplog.at_level(logging.INFO, "cortexd.ledger"):
        again = open_journal(disk)
    assert [found.reservation_id for found in again.accounts.reservations()] == [kept]
    assert disk.read("seg-00000001.jsonl") == torn
    opened, notice = caplog.messages
    torn_bytes = len(torn) - torn.rindex(b"\n") - 1
    assert f"segment=seg-00000002.jsonl n=3 replayed=3 ghosts=1 torn_bytes={torn_bytes} " in opened
    assert caplog.records[-1].levelno == logging.WARNING
    assert notice.startswith(
        "event=ledger_torn_tail file=ledger/seg-00000001.jsonl "
        f"line={torn.count(LF) + 1} offset={len(torn) - torn_bytes} bytes={torn_bytes} action="
    )


def test_unfinished_segments_are_cleared_away() -> None:
    disk = SimulatedDisk()
    open_journal(disk)
    disk.create("seg-00000002.jsonl.tmp")
    open_journal(disk)
    assert disk.names() == ["durable.hint", "seg-00000001.jsonl", "seg-00000002.jsonl"]


def damaged(disk: SimulatedDisk) -> LedgerProblem:
    with pytest.raises(LedgerProblem) as caught:
        open_journal(disk)
    assert caught.value.kind == "damaged"
    assert "restore the directory from a backup" in caught.value.hint
    return caught.value


def test_damage_to_what_was_durable_is_refused_with_file_offset_and_options() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    hold(journal)
    journal.sync()
    hold(journal)
    before = disk.names()
    data = bytearray(newest(disk))
    offset = data.index(b'"k":"hold"')
    data[offset] ^= 1
    disk.overwrite("seg-00000001.jsonl", bytes(data))
    problem = damaged(disk)
    assert problem.where == "ledger/seg-00000001.jsonl"
    line_offset = data.rindex(b"\n", 0, offset) + 1
    line = data.count(LF, 0, offset) + 1
    assert f"line {line} (byte {line_offset}): damage inside durable data" in problem.what
    assert disk.names() == before, "a refusal changes nothing"


def test_a_segment_that_lost_its_durable_end_is_refused() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    hold(journal)
    journal.sync()
    lines = newest(disk).splitlines(keepends=True)
    disk.overwrite("seg-00000001.jsonl", b"".join(lines[:-1]))
    assert "durable by the hint: segment 1, entry 3" in damaged(disk).what


def test_a_lost_newest_segment_is_refused() -> None:
    disk = SimulatedDisk()
    open_journal(disk)
    open_journal(disk)
    disk.lose("seg-00000002.jsonl")
    damaged(disk)


def test_the_loss_of_all_segments_is_refused_and_named() -> None:
    disk = SimulatedDisk()
    open_journal(disk)
    disk.lose("seg-00000001.jsonl")
    problem = damaged(disk)
    assert problem.where == "ledger/seg-00000001.jsonl"
    assert "the file is gone" in problem.what


def test_a_segment_under_another_segments_name_is_refused() -> None:
    disk = SimulatedDisk()
    open_journal(disk)
    disk.overwrite("seg-00000009.jsonl", newest(disk))
    assert "says that it is segment 1" in damaged(disk).what


def test_after_a_reboot_time_goes_on_from_the_last_entry_not_from_the_header() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    journal = open_journal(disk, times=clock.sources())
    clock.now_ms += 3_600_000
    hold(journal)
    clock.boot += 1
    clock.now_ms += 600_000
    frozen = JournalSettings(on_reboot="freeze")
    again = open_journal(disk, times=clock.sources(), chosen=frozen)
    assert again.clock.now_ms() == journal.accounts.now_ms


def test_a_downtime_counts_from_the_last_entry_also_where_the_wall_clock_is_ahead() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    open_journal(disk, times=clock.sources())
    clock.wall_ahead_ms = 5 * 3_600_000
    journal = open_journal(disk, times=clock.sources())
    clock.now_ms += 3_600_000
    hold(journal)
    clock.boot += 1
    clock.now_ms += 600_000
    again = open_journal(disk, times=clock.sources())
    assert again.clock.downtime_ms == 600_000 - 1_000


def test_where_the_damaged_segment_is_the_only_one_moving_it_away_forgets_everything() -> None:
    disk = SimulatedDisk()
    open_journal(disk)
    disk.overwrite("seg-00000001.jsonl", b"rot\n")
    alone = damaged(disk).hint
    assert "move the whole directory elsewhere, which begins with nothing spent" in alone
    assert "the segment before it" not in alone
    disk = SimulatedDisk()
    open_journal(disk)
    open_journal(disk)
    disk.overwrite("seg-00000002.jsonl", b"rot\n")
    second = damaged(disk).hint
    assert "move this file and durable.hint elsewhere and start again, which forgets" in second


def test_where_all_segments_are_lost_nobody_is_told_to_move_one() -> None:
    disk = SimulatedDisk()
    open_journal(disk)
    disk.lose("seg-00000001.jsonl")
    assert "move this file" not in damaged(disk).hint

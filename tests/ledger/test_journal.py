"""The journal on a simulated disk and in a real directory: numbers, rolls, failures, restarts."""

import logging
from pathlib import Path

import pytest

from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import Cap, ReservationId
from cortexd.ledger.journal import Journal, JournalFailed, LedgerProblem
from cortexd.ledger.records import decode_hint, digest, header_of
from cortexd.ledger.segment import segment_name
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import (
    ACCOUNT,
    CAPS,
    KEY,
    HandClock,
    commit,
    hold,
    newest,
    open_journal,
    read_segment,
    settings,
    standing_of,
)


def close(journal: Journal, reservation_id: ReservationId, tokens: int) -> None:
    charge = Charge(tokens, tokens, 0, "settle", 0)
    commit(journal, journal.accounts.settle(journal.clock.now_ms(), reservation_id, charge)[0])


def test_a_new_ledger_begins_with_a_segment_and_a_hint() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    assert disk.names() == ["durable.hint", "seg-00000001.jsonl"]
    assert journal.written == journal.durable == len(CAPS)
    assert standing_of(journal.accounts, KEY, 0) is not None


def test_the_watermark_moves_when_the_sync_is_back_and_not_before() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    before = journal.durable
    hold(journal)
    assert (journal.written, journal.durable) == (before + 1, before)
    seen: list[int] = []
    disk.on_operation = lambda kind: seen.append(journal.durable)
    journal.sync()
    assert seen == [before, before + 1]  # the sync, then the hint
    hint = decode_hint(disk.read("durable.hint"))
    assert hint is not None
    assert (hint.seg, hint.n) == (1, before + 1)


def test_a_batch_is_one_write() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    disk.log.clear()
    now_ms = journal.clock.now_ms()
    commit(journal, journal.accounts.mark(now_ms) * 100)
    assert disk.log == ["write"]


def test_a_short_write_is_completed() -> None:
    disk = SimulatedDisk(seed=5)
    journal = open_journal(disk)
    disk.faults = {disk.operations + 1: "short", disk.operations + 2: "short"}
    held = hold(journal)
    journal.sync()
    again = open_journal(disk.after_power_loss("nothing", seed=1))
    assert [found.reservation_id for found in again.accounts.reservations()] == [held]


def test_a_start_makes_durable_what_a_killed_process_had_only_written() -> None:
    """The snapshot has it all, but a loss of power would tear a hole in the history."""
    disk = SimulatedDisk()
    journal = open_journal(disk)
    hold(journal)
    restarted = disk.after_kill(1)
    open_journal(restarted)
    _, _, entries = read_segment(
        restarted.after_power_loss("nothing", seed=1).read(segment_name(1))
    )
    assert len(entries) == journal.written


def test_history_that_cannot_be_synced_stops_no_start() -> None:
    disk = SimulatedDisk()
    hold(open_journal(disk))
    restarted = disk.after_kill(1)
    open_journal(restarted)
    at = restarted.log.index("sync_closed") + 1
    failing = disk.after_kill(1)
    failing.faults = {at: "EIO"}
    assert open_journal(failing).accounts.open_reservations == 1
    assert failing.log[at - 1] == "sync_closed"


def test_a_write_that_takes_nothing_fails_instead_of_going_round() -> None:
    class Stuck(SimulatedDisk):
        def write(self, file: int, data: bytes) -> int:
            return 0 if self.operations > 6 else super().write(file, data)

    journal = open_journal(Stuck())
    with pytest.raises(JournalFailed, match="takes no more bytes"):
        hold(journal)


def test_a_restart_goes_on_with_numbers_spend_and_reservation_ids() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    journal = open_journal(disk, times=clock.sources())
    first = hold(journal, 30)
    close(journal, first, 25)
    journal.sync()
    again = open_journal(disk, times=clock.sources())
    standing = standing_of(again.accounts, ACCOUNT, clock.now_ms)
    assert standing is not None
    assert (standing.spent, standing.reserved) == (25, 0)
    assert again.written == journal.written
    assert hold(again) == first + 1


def test_the_files_of_an_earlier_process_are_never_written_to() -> None:
    disk = SimulatedDisk()
    hold(open_journal(disk))
    before = newest(disk)
    journal = open_journal(disk)
    hold(journal)
    journal.sync()
    assert disk.read("seg-00000001.jsonl") == before
    header = header_of(newest(disk).split(b"\n")[0])
    assert header is not None
    assert (header.seg, header.prev) == (2, digest(before))


def test_reservations_of_a_dead_process_become_ghosts_for_the_grace() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    held = hold(open_journal(disk, times=clock.sources()), 40)
    clock.now_ms += 5_000
    journal = open_journal(disk, times=clock.sources(), chosen=settings(grace_ms=7_000))
    (ghost,) = journal.accounts.reservations()
    assert (ghost.reservation_id, ghost.tokens) == (held, 40)
    assert ghost.ghost_until_ms == clock.now_ms + 7_000


def test_a_second_crash_gives_a_ghost_no_second_grace() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    hold(open_journal(disk, times=clock.sources()))
    open_journal(disk, times=clock.sources(), chosen=settings(grace_ms=7_000))
    until_ms = clock.now_ms + 7_000
    clock.now_ms += 6_000
    journal = open_journal(disk.after_kill(1), times=clock.sources())
    assert [found.ghost_until_ms for found in journal.accounts.reservations()] == [until_ms]


def test_the_configured_caps_are_in_force_and_durable_when_it_opens() -> None:
    disk = SimulatedDisk()
    open_journal(disk)
    journal = open_journal(disk, [Cap(KEY, 5)])
    assert journal.durable == journal.written
    standing = standing_of(journal.accounts, KEY, journal.clock.now_ms())
    assert standing is not None
    assert (standing.hard_cap, standing.window_ms) == (5, None)
    assert standing_of(journal.accounts, ACCOUNT, journal.clock.now_ms()) is None


@pytest.mark.parametrize("kind", ["create", "write", "sync", "rename", "sync_directory"])
def test_a_disk_that_fails_while_opening_is_a_problem_with_a_hint(kind: str) -> None:
    probe = SimulatedDisk()
    open_journal(probe)
    disk = SimulatedDisk()
    disk.faults = {probe.log.index(kind) + 1: "EIO"}
    with pytest.raises(LedgerProblem) as caught:
        open_journal(disk)
    assert caught.value.kind == "unusable"
    assert caught.value.where == "ledger"


def test_a_disk_that_fails_on_the_first_entries_is_a_problem_too() -> None:
    probe = SimulatedDisk()
    open_journal(probe)
    disk = SimulatedDisk()
    disk.faults = {len(probe.log) - 1: "EIO"}  # the last sync, before the last hint
    with pytest.raises(LedgerProblem, match="syncing failed"):
        open_journal(disk)


@pytest.mark.parametrize("operation", ["write", "sync"])
def test_after_the_first_error_nothing_is_written_or_synced_again(
    operation: str, caplog: pytest.LogCaptureFixture
) -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    if operation == "sync":
        hold(journal)
    disk.faults = {disk.operations + 1: "EIO"}
    with pytest.raises(JournalFailed):
        hold(journal) if operation == "write" else journal.sync()
    failed_at = disk.operations
    for attempt in (journal.sync, lambda: hold(journal), journal.prepare_roll()):
        with pytest.raises(JournalFailed):
            attempt()
    assert disk.operations == failed_at
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "action='cortexd ends now, no acknowledged budget is lost" in errors[0].getMessage()


def test_a_hint_that_cannot_be_written_stops_nothing() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    hold(journal)
    disk.faults = {disk.operations + 2: "EIO"}
    journal.sync()
    assert journal.durable == journal.written


def test_a_roll_begins_a_segment_that_needs_no_other(caplog: pytest.LogCaptureFixture) -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, chosen=settings(segment_bytes_max=1_500))
    held = [hold(journal)]
    while not journal.roll_is_due():
        held.append(hold(journal))
    with caplog.at_level(logging.INFO, "cortexd.ledger"):
        journal.prepare_roll()()
    assert not journal.roll_is_due()
    assert journal.durable == journal.written
    old = disk.read("seg-00000001.jsonl")
    assert caplog.messages == [
        f"event=ledger_rolled segment=seg-00000002.jsonl n={journal.written} "
        f"previous=seg-00000001.jsonl previous_bytes={len(old)} previous_digest={digest(old)}"
    ]
    disk.lose("seg-00000001.jsonl")
    again = open_journal(disk.after_power_loss("nothing", seed=1))
    assert [found.reservation_id for found in again.accounts.reservations()] == held


def test_a_segment_is_replaced_after_a_day() -> None:
    clock = HandClock()
    journal = open_journal(SimulatedDisk(), times=clock.sources())
    clock.now_ms += 86_399_999
    assert not journal.roll_is_due()
    clock.now_ms += 1
    assert journal.roll_is_due()


def test_a_step_of_the_wall_clock_begins_a_new_segment_but_not_twice_a_second() -> None:
    """A downtime is judged by the pair of times in the header, which a step makes wrong."""
    clock = HandClock()
    journal = open_journal(SimulatedDisk(), times=clock.sources())
    clock.wall_ahead_ms = 5_000
    clock.now_ms += 999
    assert not journal.roll_is_due()
    clock.now_ms += 1
    assert journal.roll_is_due()
    journal.prepare_roll()()
    clock.now_ms += 60_000
    assert not journal.roll_is_due()


def test_a_higher_segment_of_somebody_else_ends_the_journal() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    disk.create("seg-00000002.jsonl")
    with pytest.raises(JournalFailed, match="not ours"):
        journal.prepare_roll()()


def test_low_space_is_noticed_within_a_second_and_so_is_space_that_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "cortexd.ledger")
    disk, clock = SimulatedDisk(), HandClock()
    journal = open_journal(disk, times=clock.sources())
    disk.free = 1_000
    clock.now_ms += 999
    assert journal.has_room()
    clock.now_ms += 1
    assert not journal.has_room(), "whether or not anything was written"
    disk.free = 1 << 40
    clock.now_ms += 999
    assert not journal.has_room()
    clock.now_ms += 1
    assert journal.has_room()
    said = [record.getMessage().split()[0] for record in caplog.records]
    assert said[-2:] == ["event=ledger_low_on_room", "event=ledger_has_room_again"], "once each"


def test_space_that_cannot_be_measured_counts_as_enough() -> None:
    class Mute(SimulatedDisk):
        def free_bytes(self) -> int:
            raise OSError("simulated")

    assert open_journal(Mute()).has_room()


def test_a_reboot_ages_windows_by_the_wall_clock_and_a_long_one_is_pointed_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk, clock = SimulatedDisk(), HandClock()
    before = open_journal(disk, times=clock.sources()).clock.now_ms()
    clock.boot += 1
    clock.now_ms += 31 * 86_400_000
    with caplog.at_level(logging.INFO, "cortexd.ledger"):
        journal = open_journal(disk, times=clock.sources())
    assert journal.clock.now_ms() == before + 31 * 86_400_000 - 1_000
    assert "rebooted=true" in caplog.text
    assert "ledger.on_reboot to freeze" in caplog.text


def test_a_closed_journal_gives_everything_back() -> None:
    disk = SimulatedDisk()
    open_journal(disk).close()
    assert disk.is_shut


def test_a_real_directory_is_opened_closed_and_opened_again(tmp_path: Path) -> None:
    directory = str(tmp_path / "ledger")
    journal = Journal.open(directory, CAPS)
    hold(journal, 12)
    journal.sync()
    with pytest.raises(LedgerProblem, match="another cortexd"):
        Journal.open(directory, CAPS)
    journal.close()
    again = Journal.open(directory, CAPS, grace_seconds=1.5, on_reboot="freeze")
    (ghost,) = again.accounts.reservations()
    assert ghost.tokens == 12
    assert ghost.ghost_until_ms is not None
    assert 0 < ghost.ghost_until_ms - again.clock.now_ms() <= 1_500
    again.close()


def test_a_real_directory_that_is_refused_is_unlocked_again(tmp_path: Path) -> None:
    (tmp_path / "seg-00000001.jsonl").write_bytes(b"nonsense\n")
    for _ in range(2):
        with pytest.raises(LedgerProblem) as caught:
            Journal.open(str(tmp_path), CAPS)
        assert caught.value.kind == "damaged"


def test_a_real_segment_chain_is_readable_as_json_behind_its_tab(tmp_path: Path) -> None:
    for _ in range(2):
        journal = Journal.open(str(tmp_path), CAPS)
        hold(journal)
        journal.sync()
        journal.close()
    first, second = (tmp_path / segment_name(number) for number in (1, 2))
    header = header_of(second.read_bytes().split(b"\n")[0])
    assert header is not None
    assert header.prev == digest(first.read_bytes())
    assert b"\0" not in second.read_bytes()

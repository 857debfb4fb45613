"""What only mutants noticed: rules that could be broken without any other test complaining."""

import os
import threading
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
import trio
import trio.testing

from cortexd.dialects.upper_bound import Bound
from cortexd.dialects.usage import Ending, EndingKind, Seen
from cortexd.ledger.accounts import Accounts
from cortexd.ledger.cap_windows import calendar, rolling
from cortexd.ledger.charging import charge
from cortexd.ledger.clock import LastSeen, LedgerClock, TimeSources
from cortexd.ledger.disk import DirectoryDisk
from cortexd.ledger.entries import Cap, Refused, RollEntry, Why, model_label
from cortexd.ledger.invariants import check_history
from cortexd.ledger.journal import JournalFailed
from cortexd.ledger.meanings import BrokenInvariant
from cortexd.ledger.records import digest, encode_header, header_of
from cortexd.ledger.reservations import IllegalEntry
from cortexd.ledger.segment import segment_name
from cortexd.ledger.sync_thread import SyncThread
from cortexd.ledger.task import CALLS_PER_TURN
from tests.ledger.scribe import header
from tests.ledger.simulated_disk import SimulatedDisk
from tests.ledger.workbench import (
    KEY,
    SCOPES,
    Collected,
    Count,
    InlineSyncer,
    bound,
    granted,
    hold,
    open_journal,
    pass_time,
    running,
    settings,
    trio_clock,
)


@pytest.mark.parametrize(
    ("kind", "why"), [(EndingKind.COMPLETED, "unmetered"), (EndingKind.CUT, "cut")]
)
def test_an_ending_without_a_count_costs_the_bound_even_token_by_token(
    kind: EndingKind, why: Why
) -> None:
    """What was seen is no measure of an answer that was promised whole."""
    ending = Ending(kind, True, None, Seen(chunks=10, text_bytes=45), True)
    cost = charge(Bound(100, 400, 1), ending, dispatched=True)
    assert (cost.tokens, cost.why) == (500, why)


def test_another_boot_is_another_boot_however_long_the_machine_is_up() -> None:
    """Nothing about the two boot clocks tells them apart, only the id."""
    sources = TimeSources(
        boottime_ms=lambda: 900_000, wall_ms=lambda: 1_700_000_060_000, boot_id="boot-2"
    )
    seen = LastSeen("boot-1", 1_700_000_000_000, 1_700_000_000_000 + 10, 1_700_000_000_010)
    clock = LedgerClock(sources, seen, "freeze")
    assert clock.rebooted
    assert clock.now_ms() == seen.ledger_ms


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_a_segment_that_appears_beside_ours_ends_the_journal_at_the_next_roll(ahead: int) -> None:
    """Another writer in this directory, whether it is at our number or further."""
    disk = SimulatedDisk()
    journal = open_journal(disk)
    hold(journal)
    disk.overwrite(segment_name(2 + ahead), b"somebody else's")
    with pytest.raises(JournalFailed, match="not ours"):
        journal.prepare_roll()()


def test_the_first_segment_of_a_process_names_the_last_one_of_the_process_before() -> None:
    """By all of its bytes, a torn tail among them: only so does `ledger verify` miss none."""
    disk = SimulatedDisk()
    hold(open_journal(disk))
    torn = disk.read(segment_name(1)) + b"0123"
    disk.overwrite(segment_name(1), torn)
    open_journal(disk)
    begun = header_of(disk.read(segment_name(2)).split(b"\n")[0])
    assert begun is not None
    assert begun.prev == digest(torn)


def test_only_a_civil_cap_has_civil_periods() -> None:
    """Neither the books nor their history let any other cap begin anew."""
    accounts = Accounts()
    [limited] = accounts.configure(0, [Cap(KEY, 10, rolling(60_000))])
    accounts.apply(limited)
    roll = RollEntry(90_000_000, limited.l, 180_000_000, 180_000_000, 170_000_000)
    with pytest.raises(IllegalEntry):
        accounts.apply(roll)
    with pytest.raises(BrokenInvariant) as caught:
        check_history([limited, roll])
    assert caught.value.name == "I21"


def test_no_name_of_a_model_or_a_boot_brings_a_byte_that_is_one_bit_from_nul() -> None:
    for byte in b" @\0":
        assert byte not in model_label(f"org@here/a model{chr(byte)}").encode()
        strange = msgspec.structs.replace(header(), boot=f"b{chr(byte)}t", sw=f"c{chr(byte)}x")
        assert byte not in encode_header(strange)


def test_only_room_that_an_ordinary_user_may_fill_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest is kept for the superuser, whom the daemon does not run as."""
    disk = DirectoryDisk.open(str(tmp_path / "ledger"))
    room = SimpleNamespace(f_bavail=3, f_bfree=9, f_frsize=4096)
    monkeypatch.setattr(os, "fstatvfs", lambda _: room)
    assert disk.free_bytes() == 3 * 4096
    disk.shut()


async def test_a_civil_day_begins_while_the_daemon_runs(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Whoever asks first after midnight finds a new day, whatever was spent before."""
    caps = [Cap(KEY, 10, calendar("day", "UTC"))]
    async with running(open_journal(SimulatedDisk(), caps, trio_clock()), InlineSyncer()) as desk:
        async with await granted(desk, 10) as reservation:
            reservation.dispatched = True
        assert isinstance(await desk.reserve(SCOPES, bound(1), request_id="r"), Refused)
        await pass_time(86_400)
        await granted(desk, 10)


async def test_a_ghost_that_is_charged_after_midnight_counts_in_the_new_day(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Its neuron may have been at work until then, so the day that has begun has to pay."""
    caps = [Cap(KEY, 10, calendar("day", "UTC"))]
    disk = SimulatedDisk()
    async with running(open_journal(disk, caps, trio_clock()), InlineSyncer()) as desk:
        await granted(desk, 10)
    day_ms = 86_400_000
    # The ledger looks around every five seconds, but not between midnight and the ghost's end.
    await pass_time((-trio_clock().wall_ms() % 5_000 + 2_500) / 1000)
    to_midnight_ms = day_ms - trio_clock().wall_ms() % day_ms
    journal = open_journal(disk, caps, trio_clock(), settings(grace_ms=to_midnight_ms + 1_000))
    async with running(journal, InlineSyncer()) as desk:
        await pass_time((to_midnight_ms + 2_000) / 1000)
        (standing,) = await desk.standings((KEY,))
        assert (standing.spent, standing.reserved) == (10, 0)


async def test_a_turn_takes_no_more_calls_than_it_may() -> None:
    """However many wait: streams have to be served between two turns."""
    journal, collected, count = open_journal(SimulatedDisk(), []), Collected(), Count()
    waiting = CALLS_PER_TURN + 100
    async with running(journal, InlineSyncer(), count) as desk, trio.open_nursery() as nursery:
        for _ in range(waiting):
            nursery.start_soon(collected.reserve, desk)
    assert len(collected.reservations) == waiting
    assert max(count.batches) == CALLS_PER_TURN


async def test_a_disk_that_hangs_cannot_hold_up_the_end_of_the_process() -> None:
    with SyncThread():
        [thread] = [each for each in threading.enumerate() if each.name == "ledger-sync"]
        assert thread.daemon
    thread.join(timeout=10)


def test_a_day_that_the_clock_has_left_ends_also_beside_a_month_that_it_has_not() -> None:
    now_ms = 1_700_000_000_000  # late in the evening of a day in the middle of a month
    accounts = Accounts()
    caps = [Cap(KEY, 100, calendar(period, "UTC")) for period in ("day", "month")]
    for entry in accounts.configure(now_ms, caps, wall_ms=now_ms):
        accounts.apply(entry)
    assert accounts.roll(now_ms, now_ms) == ()
    rolls = accounts.roll(now_ms, now_ms - 86_400_000)
    assert [entry.l for entry in rolls] == [caps[0].limit_id]

"""Ledger time against restarts, reboots and wrong wall clocks."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cortexd.ledger.clock import (
    WALL_BELIEVED_FROM_MS,
    LastSeen,
    LedgerClock,
    OnReboot,
    TimeSources,
    system_time,
)
from cortexd.ledger.clock import _read_boot_id as read_boot_id

HOUR = 3_600_000


class Host:
    """A machine whose true time, boots and wall clock error the test decides."""

    def __init__(self, true_ms: int = 1_700_000_000_000) -> None:
        self.true_ms = true_ms
        self.booted_ms = true_ms - 50_000
        self.boots = 1
        self.wall_error_ms = 0

    def sources(self) -> TimeSources:
        return TimeSources(
            boottime_ms=lambda: self.true_ms - self.booted_ms,
            wall_ms=lambda: self.true_ms + self.wall_error_ms,
            boot_id=f"boot-{self.boots}",
        )

    def reboot(self, down_ms: int) -> None:
        self.true_ms += down_ms
        self.booted_ms = self.true_ms
        self.boots += 1

    def clock(self, last_seen: LastSeen | None, on_reboot: OnReboot = "wall") -> LedgerClock:
        return LedgerClock(self.sources(), last_seen, on_reboot)


def last_seen(clock: LedgerClock) -> LastSeen:
    return LastSeen(clock.boot_id, clock.offset_ms, clock.now_ms(), clock.wall_ms())


def test_a_new_ledger_starts_at_the_wall_clock() -> None:
    host = Host()
    clock = host.clock(None)
    assert clock.now_ms() == host.true_ms
    assert clock.downtime_ms == 0
    assert not clock.rebooted


def test_steps_of_the_wall_clock_do_not_move_ledger_time_and_show_as_skew() -> None:
    host = Host()
    clock = host.clock(None)
    before = clock.now_ms()
    host.wall_error_ms = 7 * HOUR
    assert clock.now_ms() == before
    assert clock.skew_ms() == 7 * HOUR
    host.wall_error_ms = -7 * HOUR
    assert clock.now_ms() == before
    assert clock.skew_ms() == -7 * HOUR


def test_a_restart_within_one_boot_keeps_the_offset_whatever_the_wall_clock_says() -> None:
    host = Host()
    seen = last_seen(host.clock(None))
    host.wall_error_ms = -3 * HOUR
    host.true_ms += 5_000
    clock = host.clock(seen)
    assert clock.now_ms() == seen.ledger_ms + 5_000
    assert clock.offset_ms == seen.offset_ms
    assert clock.downtime_ms == 5_000


def test_a_reboot_counts_the_downtime_by_the_wall_clock_less_the_unseen_steps() -> None:
    host = Host()
    seen = last_seen(host.clock(None))
    host.reboot(down_ms=HOUR)
    clock = host.clock(seen)
    assert clock.rebooted
    assert clock.downtime_ms == HOUR - 1_000
    assert clock.now_ms() == seen.ledger_ms + HOUR - 1_000
    host.true_ms += 10
    assert clock.now_ms() == seen.ledger_ms + HOUR - 1_000 + 10


def test_a_frozen_ledger_does_not_age_while_the_machine_is_down() -> None:
    host = Host()
    seen = last_seen(host.clock(None))
    host.reboot(down_ms=HOUR)
    assert host.clock(seen, "freeze").now_ms() == seen.ledger_ms


def test_a_reboot_into_a_wall_clock_that_lost_its_battery_adds_no_downtime() -> None:
    host = Host()
    seen = last_seen(host.clock(None))
    host.reboot(down_ms=HOUR)
    host.wall_error_ms = -host.true_ms  # 1970
    assert host.clock(seen).now_ms() == seen.ledger_ms


def test_a_wall_clock_that_was_wrong_at_the_last_record_adds_no_downtime() -> None:
    """A board boots in 1970, writes, is set right, reboots: the decades between are no downtime."""
    host = Host()
    first = host.clock(None)
    host.reboot(down_ms=1_000)
    host.wall_error_ms = -host.true_ms
    seen = last_seen(host.clock(last_seen(first)))
    host.wall_error_ms = 0
    host.reboot(down_ms=1_000)
    assert host.clock(seen).downtime_ms == 0


def test_a_ledger_that_began_without_a_battery_does_not_age_by_decades() -> None:
    """Ledger time began in 1970 as well, so that it does not tell that the wall clock was wrong."""
    host = Host()
    host.wall_error_ms = -host.true_ms
    seen = last_seen(host.clock(None))
    host.reboot(down_ms=1_000)
    host.wall_error_ms = 0
    assert host.clock(seen).downtime_ms == 0


def test_a_wall_clock_ahead_of_the_ledger_is_believed_only_for_the_time_since_the_last_record() -> (
    None
):
    host = Host()
    clock = host.clock(None)
    host.wall_error_ms = 5 * HOUR  # set ahead in the run, and it stays so
    seen = last_seen(clock)
    host.reboot(down_ms=HOUR)
    assert host.clock(seen).downtime_ms == HOUR - 1_000


def test_a_wall_clock_a_little_behind_at_the_last_record_does_not_lengthen_the_downtime() -> None:
    host = Host()
    clock = host.clock(None)
    host.wall_error_ms = -30_000
    seen = last_seen(clock)
    host.wall_error_ms = 0
    host.reboot(down_ms=HOUR)
    assert host.clock(seen).downtime_ms == HOUR - 1_000


def test_boottime_before_the_last_record_of_the_same_boot_is_judged_like_a_reboot() -> None:
    """A restored machine image keeps its boot id; the clock may not stand still until it has
    caught up, nor jump."""
    host = Host()
    seen = last_seen(host.clock(None))
    host.booted_ms += 40_000
    host.true_ms += 10_000
    clock = host.clock(seen)
    assert clock.rebooted
    assert clock.now_ms() == seen.ledger_ms + 9_000


def test_an_unknown_boot_id_never_counts_as_the_same_boot() -> None:
    sources = TimeSources(boottime_ms=lambda: 500, wall_ms=lambda: 10_000, boot_id="")
    seen = LastSeen(boot_id="", offset_ms=9_000, ledger_ms=9_100, wall_ms=9_100)
    clock = LedgerClock(sources, seen, "freeze")
    assert clock.rebooted
    assert clock.now_ms() == 9_100


def test_ledger_time_stands_still_rather_than_run_backwards() -> None:
    host = Host()
    clock = host.clock(None)
    before = clock.now_ms()
    host.true_ms -= 30_000
    assert clock.now_ms() == before
    host.true_ms += 30_001
    assert clock.now_ms() == before + 1


@given(
    moves=st.lists(
        st.tuples(st.sampled_from(["run", "step", "restart", "reboot"]), st.integers(0, 48 * HOUR)),
        max_size=12,
    )
)
def test_ledger_time_never_passes_faster_than_true_time(moves: list[tuple[str, int]]) -> None:
    """Windows that expire early would spend a cap twice. Known to hold as long as the wall clock
    is never ahead of the truth after a reboot (it may well be behind)."""
    host = Host()
    clock = host.clock(None)
    started_ms, true_started_ms = clock.now_ms(), host.true_ms
    for move, amount in moves:
        before = clock.now_ms()
        match move:
            case "run":
                host.true_ms += amount
            case "step":  # only ever set right from behind: the assumption above
                host.wall_error_ms = min(0, HOUR - amount)
            case "restart":
                seen = last_seen(clock)
                host.true_ms += amount
                clock = host.clock(seen)
            case _:
                seen = last_seen(clock)
                was_right = host.wall_error_ms == 0
                host.reboot(amount)
                if was_right:
                    host.wall_error_ms = -(amount // 2)
                clock = host.clock(seen)
        assert clock.now_ms() >= before
        assert clock.now_ms() - started_ms <= host.true_ms - true_started_ms


def test_the_kernel_names_this_boot_and_counts_its_time() -> None:
    sources = system_time()
    assert sources.boot_id
    first = sources.boottime_ms()
    assert sources.boottime_ms() >= first > 0
    assert sources.wall_ms() > 1_600_000_000_000


@pytest.mark.parametrize("content", [None, b"\xff\xfe"])
def test_a_boot_id_that_cannot_be_read_is_empty(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "boot_id"
    if content is not None:
        path.write_bytes(content)
    assert read_boot_id(path) == ""


@pytest.mark.parametrize("behind_ms", [0, 1, 40 * 365 * 24 * HOUR])
def test_the_calendar_follows_the_wall_clock_unless_that_was_never_set(behind_ms: int) -> None:
    host = Host(true_ms=WALL_BELIEVED_FROM_MS)
    clock = host.clock(None)
    host.true_ms += HOUR
    ledger_ms = clock.now_ms()
    host.wall_error_ms = -HOUR - behind_ms
    assert clock.civil_ms() == (clock.wall_ms() if not behind_ms else ledger_ms)

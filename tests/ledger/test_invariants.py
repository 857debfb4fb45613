"""Each invariant finds what breaks it, and nothing in what does not."""

from typing import Any

import msgspec
import pytest

from cortexd.ledger import cap_windows
from cortexd.ledger.accounts import Accounts
from cortexd.ledger.cap_windows import BALANCE, CapWindow
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import (
    AMOUNT_MAX,
    Cap,
    CloseEntry,
    DropEntry,
    Entry,
    GhostEntry,
    HoldEntry,
    LearnEntry,
    LimitEntry,
    MarkEntry,
    ModelLabel,
    ReservationId,
    RollEntry,
    Scope,
    Snapshot,
    Why,
    limit_id,
)
from cortexd.ledger.invariants import (
    MEANINGS,
    BrokenInvariant,
    SegmentFacts,
    check_accounts,
    check_answer,
    check_at_rest,
    check_cap_returned,
    check_chain,
    check_history,
    check_place,
    check_replay,
)
from cortexd.ledger.limits import Limit
from cortexd.ledger.records import Place
from tests.ledger.scribe import header
from tests.ledger.workbench import ACCOUNT, CAPS, KEY, SCOPES

ONE, TWO = ReservationId(1), ReservationId(2)


def hold(t: int, number: int = 1, tokens: int = 10) -> HoldEntry:
    return HoldEntry(t, ReservationId(number), SCOPES, tokens)


def close(t: int, number: int = 1, tokens: int = 10, why: Why = "settle") -> CloseEntry:
    return CloseEntry(t, ReservationId(number), tokens, why)


def rolling(t: int, hard_cap: int, window_ms: int) -> LimitEntry:
    name = limit_id(KEY, cap_windows.rolling(window_ms))
    return LimitEntry(t, name, KEY, "tok", "rolling", hard_cap, window_ms)


def balance(t: int, hard_cap: int) -> LimitEntry:
    return LimitEntry(t, limit_id(KEY), KEY, "tok", "balance", hard_cap)


SECOND = cap_windows.rolling(1000)


def drop(t: int, window: CapWindow = SECOND) -> DropEntry:
    return DropEntry(t, limit_id(KEY, window))


def books(*entries: Entry, accounts: Accounts | None = None) -> Accounts:
    accounts = accounts or Accounts()
    for entry in entries:
        accounts.apply(entry)
    return accounts


def broken_by(*entries: Entry, start: Snapshot | None = None) -> str:
    """Name of the invariant that the last of the entries breaks; those before it break none."""
    check_history(entries[:-1], start)
    with pytest.raises(BrokenInvariant) as caught:
        check_history(entries, start)
    assert MEANINGS[caught.value.name] in str(caught.value)
    return caught.value.name


# Entries


def test_a_life_with_everything_in_it_breaks_nothing() -> None:
    check_history(
        [
            rolling(0, 100, 1000),
            hold(1, 1, 60),
            close(2, 1, 60),
            hold(3, 2, 40),
            MarkEntry(4),
            balance(5, 500),
            GhostEntry(6, TWO, 50),
            close(50, 2, 40, "crash"),
            drop(51),
            drop(51, BALANCE),
            hold(52, 3, 9999),
            close(60, 3, 0, "release"),
        ]
    )


@pytest.mark.parametrize("tokens", [40, 41])
def test_a_rolling_cap_is_judged_charge_by_charge(tokens: int) -> None:
    entries: list[Entry] = [rolling(0, 100, 1000), hold(1, 1, 60), close(2, 1, 60)]
    entries.append(hold(1001, 2, tokens))
    if tokens == 40:
        check_history(entries)
    else:
        assert broken_by(*entries) == "I1"
    check_history([*entries[:3], hold(1002, 2, 100)])


def test_open_reservations_count_however_old() -> None:
    assert broken_by(rolling(0, 100, 1000), hold(1, 1, 60), hold(9000, 2, 41)) == "I1"


def test_a_balance_begins_with_all_that_was_spent() -> None:
    before = (hold(1, 1, 60), close(2, 1, 60), balance(3, 100))
    check_history([*before, hold(4, 2, 40)])
    assert broken_by(*before, hold(4, 2, 41)) == "I1"


def test_taking_a_cap_away_and_back_is_no_reset() -> None:
    before = (rolling(0, 100, 1000), hold(1, 1, 60), close(2, 1, 60), drop(3))
    check_history([*before, hold(4, 2, 400), close(5, 2, 0, "release"), rolling(6, 100, 1000)])
    assert broken_by(*before, rolling(6, 100, 1000), hold(7, 2, 41)) == "I1"


def test_another_rolling_window_carries_what_still_counts() -> None:
    before = (rolling(0, 100, 1000), hold(1, 1, 60), close(2, 1, 60))
    assert broken_by(*before, rolling(1001, 100, 5000), hold(1002, 2, 41)) == "I1"
    check_history([*before, rolling(1002, 100, 5000), hold(1003, 2, 100)])


def test_a_history_goes_on_from_a_snapshot() -> None:
    past = books(rolling(0, 100, 1000), hold(1, 1, 30), close(2, 1, 30), hold(3, 2, 40))
    past.apply(GhostEntry(4, TWO, 50))
    start = past.dump()
    check_history([close(50, 2, 40, "crash"), hold(51, 3, 30)], start)
    assert broken_by(hold(5, 3, 31), start=start) == "I1"
    assert broken_by(hold(5, 4), start=start) == "I12"
    assert broken_by(close(49, 2, 40, "crash"), start=start) == "I9"
    assert broken_by(close(3, 2), start=start) == "I12"


def test_a_retired_cap_in_a_snapshot_admits_everything() -> None:
    start = books(rolling(0, 100, 1000), drop(1)).dump()
    check_history([hold(5, 1, 1000)], start)


@pytest.mark.parametrize(
    ("entries", "name"),
    [
        ((hold(5), hold(4, 2)), "I12"),
        ((hold(1), hold(2, 1)), "I12"),
        ((hold(1, 2),), "I12"),
        ((close(1),), "I10"),
        ((hold(1), close(2), close(3)), "I10"),
        ((GhostEntry(1, ONE, 5),), "I9"),
        ((hold(1), GhostEntry(2, ONE, 5), GhostEntry(3, ONE, 9)), "I9"),
        ((hold(1), close(2, 1, 10, "crash")), "I9"),
        ((hold(1), close(2, 1, 1, "release")), "I13"),
        ((hold(1), close(2, 1, 9, "unknown")), "I13"),
        ((hold(1), close(2, 1, 9, "cut")), "I13"),
        ((hold(1), close(2, 1, 9, "unmetered")), "I13"),
        ((hold(1), GhostEntry(2, ONE, 5), close(5, 1, 9, "crash")), "I13"),
        ((hold(1), CloseEntry(2, ONE, 9, "settle", 4, 4)), "I13"),
    ],
)
def test_what_cannot_happen_is_named(entries: tuple[Entry, ...], name: str) -> None:
    assert broken_by(*entries) == name


HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def limit(t: int, cap: Cap) -> LimitEntry:
    """What a new cap is told, at the beginning of a day by ledger time."""
    (entry,) = Accounts().configure(t, [cap])
    assert isinstance(entry, LimitEntry)
    return entry


def roll(t: int, not_before_ms: int) -> RollEntry:
    return RollEntry(t, limit_id(KEY, DAYS), t, t + DAY_MS, not_before_ms)


DAYS = cap_windows.calendar("day", "UTC")


@pytest.mark.parametrize(
    "cap",
    [
        Cap(KEY, 1, cap_windows.rolling(1000), "req"),
        Cap(KEY, 1, cap_windows.fixed(DAY_MS), "req"),
        Cap(KEY, 1, cap_windows.HELD, "con"),
        Cap(KEY, 19, cap_windows.fixed(DAY_MS)),
        Cap(KEY, 19, DAYS),
        Cap(KEY, 1, BALANCE, "req"),
    ],
)
def test_a_cap_of_every_unit_and_window_is_judged(cap: Cap) -> None:
    assert broken_by(limit(DAY_MS, cap), hold(DAY_MS, 1), hold(DAY_MS + 5, 2)) == "I1"
    shadow = msgspec.structs.replace(cap, shadow=True)
    check_history([limit(DAY_MS, shadow), hold(DAY_MS, 1), hold(DAY_MS + 5, 2)])
    snapshot = books(limit(DAY_MS, cap), hold(DAY_MS, 1)).dump()
    assert broken_by(hold(DAY_MS + 5, 2), start=snapshot) == "I1"


def test_a_cap_that_is_new_knows_what_a_window_remembers() -> None:
    before = (rolling(DAY_MS, 100, 1000), hold(DAY_MS, 1, 60), close(DAY_MS + 2, 1, 60))
    for cap in (Cap(KEY, 99, cap_windows.fixed(DAY_MS)), Cap(KEY, 99, DAYS), Cap(KEY, 99)):
        new = limit(DAY_MS + 3, cap)
        assert broken_by(*before, new, hold(DAY_MS + 4, 2, 40)) == "I1"
        check_history([*before, new, hold(DAY_MS + 4, 2, 39)])


def test_periods_begin_anew_in_the_history_too() -> None:
    fixed, days = Cap(KEY, 10, cap_windows.fixed(DAY_MS)), Cap(KEY, 10, DAYS)
    spent = (hold(DAY_MS, 1), close(DAY_MS + 1, 1))
    check_history([limit(DAY_MS, fixed), *spent, hold(2 * DAY_MS, 2)])
    assert broken_by(limit(DAY_MS, days), *spent, hold(2 * DAY_MS, 2)) == "I1"
    next_day = roll(2 * DAY_MS, 3 * DAY_MS - DAY_MS // 10)
    check_history([limit(DAY_MS, days), *spent, next_day, hold(2 * DAY_MS, 2)])


def test_a_civil_period_that_comes_too_soon_is_found() -> None:
    new = limit(DAY_MS, Cap(KEY, 10, DAYS))
    soon = 2 * DAY_MS - DAY_MS // 10
    check_history([new, roll(soon, soon + DAY_MS)])
    assert broken_by(new, roll(soon - 1, soon + DAY_MS)) == "I21"
    assert broken_by(new, roll(soon, soon + 19 * HOUR_MS)) == "I21"
    assert broken_by(roll(soon, soon + DAY_MS)) == "I21"
    start = books(new).dump()
    assert broken_by(roll(soon - 1, soon + DAY_MS), start=start) == "I21"


@pytest.mark.parametrize(
    "entry",
    [
        CloseEntry(2, ONE, 9, "settle", 5, 4),
        CloseEntry(2, ONE, 90, "abort", 50, 40),
        CloseEntry(2, ONE, AMOUNT_MAX, "failed", AMOUNT_MAX, 7),
        CloseEntry(2, ONE, 11, "cut"),
    ],
)
def test_a_charge_that_agrees_with_its_reason_is_fine(entry: CloseEntry) -> None:
    check_history([hold(1), entry])


# Accounts


def test_live_accounts_pass_and_their_snapshot_follows_from_their_entries() -> None:
    entries: list[Entry] = [rolling(0, 100, 1000), hold(1, 1, 60), close(2, 1, 60), hold(3, 2, 40)]
    accounts = books(*entries)
    check_accounts(accounts)
    check_replay(Accounts().dump(), entries, accounts.dump())
    few = books(*entries, accounts=Accounts(buckets=3))
    check_accounts(few)
    check_replay(Accounts().dump(), entries, few.dump(), buckets=3)


def test_a_sum_that_is_none_is_found() -> None:
    accounts = books(rolling(0, 100, 1000))
    accounts._limits.on[(KEY,)].every[0].reserved = 7
    with pytest.raises(BrokenInvariant, match=r"I2: .*: 7 reserved, not 0"):
        check_accounts(accounts)


def test_accounts_that_cannot_be_written_down_are_found() -> None:
    accounts = books(hold(1))
    accounts.now_ms = -1
    with pytest.raises(BrokenInvariant, match="I11: a snapshot that cannot be read back"):
        check_accounts(accounts)


def test_a_snapshot_that_comes_back_as_another_is_found() -> None:
    """Two charges, which a bug takes for one grain when it reads them back."""
    first = (rolling(0, 100, 1000), hold(1, 1, 60), close(2, 1, 60))
    accounts = books(*first, hold(500, 2), close(600, 2))
    accounts._limits.buckets = 1
    with pytest.raises(BrokenInvariant, match=r"I11: .* not canonical"):
        check_accounts(accounts)


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ((MarkEntry(3),), "time and next number: 3, 2 or 2, 2"),
        ((close(2, 1, 9),), "reservation: 0 of them or 1"),
        ((close(2, 1, 9), hold(2, 2)), "time and next number"),
        ((rolling(2, 9, 9),), "cap: 1 of them or 0"),
        ((LearnEntry(2, ModelLabel("m"), 5),), "template tokens: 1 of them or 0"),
        ((GhostEntry(2, ONE, 9),), "reservation: OpenReservation"),
    ],
)
def test_entries_that_add_up_to_something_else_are_found(
    entries: tuple[Entry, ...], said: str
) -> None:
    start = books(hold(1), MarkEntry(2)).dump()
    with pytest.raises(BrokenInvariant, match="I11: .*" + said):
        check_replay(start, entries, start)


def test_entries_that_cannot_follow_are_found() -> None:
    with pytest.raises(BrokenInvariant, match="I11: entries that cannot follow"):
        check_replay(Accounts().dump(), [close(1)], Accounts().dump())


def test_at_rest_only_reservations_of_dead_owners_are_open() -> None:
    check_at_rest(books())
    accounts = books(hold(1))
    with pytest.raises(BrokenInvariant, match="I15: reservation 1"):
        check_at_rest(accounts)
    check_at_rest(books(GhostEntry(2, ONE, 9), accounts=accounts))


@pytest.mark.parametrize("tokens", [1, 40, 41, 100, 101])
def test_every_answer_keeps_what_it_promises(tokens: int) -> None:
    accounts = books(rolling(0, 100, 1000), hold(1, 1, 60), close(2, 1, 60))
    check_answer(accounts, 3, SCOPES, tokens)
    check_answer(books(hold(3, 2, 30), accounts=accounts), 4, SCOPES, tokens)


@pytest.mark.parametrize(("late_ms", "said"), [(-1, "do not fit at"), (1, "fit before")])
def test_a_wrong_moment_in_a_refusal_is_found(
    late_ms: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = books(rolling(0, 100, 1000), hold(1, 1, 60), close(2, 1, 60))
    refusal = Limit.refusal

    def wrong(limit: Limit, now_ms: int, tokens: int) -> object:
        refused = refusal(limit, now_ms, tokens)
        assert refused.fits_in_ms is not None
        return type(refused)(
            refused.standing, refused.asked, refused.fits_in_ms + late_ms, refused.exact
        )

    monkeypatch.setattr(Limit, "refusal", wrong)
    with pytest.raises(BrokenInvariant, match=said) as caught:
        check_answer(accounts, 3, SCOPES, 41)
    assert caught.value.name == "I14"


def test_a_question_that_changes_something_is_found() -> None:
    class Meddling(Accounts):
        def reserve(self, now_ms: int, scopes: tuple[Scope, ...], tokens: int, **more: Any) -> Any:
            self.now_ms += 1
            return super().reserve(now_ms, scopes, tokens, **more)

    with pytest.raises(BrokenInvariant, match="I20: a question changed time"):
        check_answer(Meddling(), 3, SCOPES, 1)


def test_a_cap_that_came_back_has_its_spend() -> None:
    accounts = books(rolling(0, 100, 1000), hold(1, 1, 60), close(2, 1, 60))
    before = accounts.dump()
    for caps in ((), (Cap(KEY, 100, cap_windows.rolling(1000)),)):
        books(*accounts.configure(3, caps), accounts=accounts)
    check_cap_returned(before, accounts.dump())
    books(rolling(4, 100, 2000), rolling(4, 100, 1000), accounts=accounts)
    check_cap_returned(before, accounts.dump())
    with pytest.raises(BrokenInvariant, match="I18"):
        check_cap_returned(before, books(rolling(0, 100, 1000)).dump())
    with pytest.raises(BrokenInvariant, match=r"I18: .* became None"):
        check_cap_returned(before, books(rolling(0, 100, 2000)).dump())


def test_a_snapshot_that_spends_nothing_is_another_one() -> None:
    """Differences in the counters are named."""
    accounts = books(hold(1))
    charge = Charge(5, 5, 0, "settle", 0)
    other = books(*accounts.settle(2, ONE, charge)[0], accounts=books(hold(1)))
    with pytest.raises(BrokenInvariant, match=f"I11: counters: .*{ACCOUNT}.*"):
        check_replay(accounts.dump(), [close(2, 1, 6)], other.dump())


# Segments


@pytest.mark.parametrize(
    ("place", "name"),
    [
        (Place(8, 7), None),
        (Place(8, 5), None),
        (Place(8, 8), "I5"),
        (Place(8, 4), "I5"),
        (Place(7, 6), "I16"),
        (Place(9, 6), "I16"),
    ],
)
def test_the_place_of_an_entry(place: Place, name: str | None) -> None:
    before = Place(7, 5)
    if name is None:
        check_place(before, place)
        return
    with pytest.raises(BrokenInvariant) as caught:
        check_place(before, place)
    assert caught.value.name == name


def facts(number: int, first: int, last: int, *, prev: str = "", lt: int = 0) -> SegmentFacts:
    """Segment `number` with entries from `first` + 1 to `last`; its digest is `d` + its number."""
    head = header(seg=number, n=first)
    head = msgspec.structs.replace(head, lt=lt, prev=prev or f"d{number - 1}")
    return SegmentFacts(number, head, last, f"d{number}", line=5, offset=99, rest_bytes=0)


@pytest.mark.parametrize(
    ("segments", "said"),
    [
        ([facts(3, 10, 20), facts(4, 20, 30), facts(5, 30, 30)], None),
        ([facts(3, 10, 20), facts(4, 21, 30)], "line 5 (byte 99): the end of the file is missing"),
        ([facts(3, 10, 20), facts(4, 19, 30)], "goes on to entry 20, but the next"),
        ([facts(3, 10, 20), facts(5, 20, 30)], "the file is missing"),
        ([facts(3, 10, 20), facts(4, 20, 30, prev="dx")], "its digest is d3, was dx"),
        ([facts(3, 10, 20, lt=7), facts(4, 20, 30, lt=6)], "before its predecessor: 7"),
        ([SegmentFacts(3), facts(4, 20, 30)], None),
    ],
)
def test_the_chain_of_segments(segments: list[SegmentFacts], said: str | None) -> None:
    found = check_chain(segments)
    if said is None:
        assert found == []
    else:
        [finding] = found
        assert said in finding.what


def test_the_caps_of_the_bench_are_sound() -> None:
    accounts = Accounts()
    books(*accounts.configure(0, CAPS), accounts=accounts)
    check_accounts(accounts)

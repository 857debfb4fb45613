"""The books, claim by claim. `test_accounts_model.py` tries what nobody thought of."""

from collections.abc import Iterable

import msgspec
import pytest

from cortexd.ledger import cap_windows
from cortexd.ledger.accounts import (
    LEARNED_MODELS_MAX,
    MODEL_LABEL_LENGTH_MAX,
    Accounts,
    BrokenBooks,
)
from cortexd.ledger.cap_windows import BALANCE, CapWindow
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import (
    AMOUNT_MAX,
    ANONYMOUS,
    Cap,
    CloseEntry,
    DropEntry,
    Entry,
    GhostEntry,
    Granted,
    HoldEntry,
    LearnEntry,
    Lifetime,
    LimitBooks,
    LimitEntry,
    LimitId,
    MarkEntry,
    ModelLabel,
    OpenReservation,
    Refused,
    ReservationId,
    RollEntry,
    Scope,
    Settled,
    Snapshot,
    Standing,
    Unknown,
    Why,
    WindowBooks,
    account_scope,
    key_scope,
    limit_id,
)
from cortexd.ledger.reservations import IllegalEntry
from tests.ledger.workbench import standing_of

ACME = account_scope("acme")
CI = key_scope("ci")
DEV = key_scope("dev")
WINDOW_MS = 10_000
COUNTS_MS = WINDOW_MS + WINDOW_MS // 1024 + 1


def spend(tokens: int, why: Why = "settle") -> Charge:
    return Charge(tokens, tokens - tokens // 3, tokens // 3, why, 0)


class Books:
    """Accounts whose decisions happen at once, as in the ledger task."""

    def __init__(self, *caps: Cap) -> None:
        self.accounts = Accounts()
        self.now_ms = 1_000_000
        self.configure(*caps)

    def apply(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            self.accounts.apply(entry)
        self.accounts.check()

    def configure(self, *caps: Cap) -> tuple[Entry, ...]:
        entries = self.accounts.configure(self.now_ms, caps)
        self.apply(entries)
        return entries

    def reserve(self, tokens: int, *scopes: Scope) -> Granted | Refused:
        entries, answer = self.accounts.reserve(self.now_ms, scopes, tokens)
        self.apply(entries)
        return answer

    def granted(self, tokens: int, *scopes: Scope) -> ReservationId:
        answer = self.reserve(tokens, *scopes)
        assert isinstance(answer, Granted), answer
        return answer.reservation_id

    def refused(self, tokens: int, *scopes: Scope) -> Refused:
        answer = self.reserve(tokens, *scopes)
        assert isinstance(answer, Refused), answer
        return answer

    def settle(self, reservation_id: ReservationId, charge: Charge) -> Settled | Unknown:
        entries, answer = self.accounts.settle(self.now_ms, reservation_id, charge)
        self.apply(entries)
        return answer

    def spent(self, tokens: int, *scopes: Scope) -> None:
        self.settle(self.granted(tokens, *scopes), spend(tokens))

    def standing(self, scope: Scope) -> tuple[int, int]:
        standing = standing_of(self.accounts, scope, self.now_ms)
        assert standing is not None
        return standing.spent, standing.reserved


DAYS = cap_windows.calendar("day", "UTC")


def balance(scope: Scope, hard_cap: int) -> Cap:
    return Cap(scope, hard_cap)


def rolling(scope: Scope, hard_cap: int, window_ms: int = WINDOW_MS) -> Cap:
    return Cap(scope, hard_cap, cap_windows.rolling(window_ms))


# Reserving


def test_a_reservation_counts_until_it_is_settled_and_then_its_charge_does() -> None:
    books = Books(balance(CI, 100))
    reservation = books.granted(60, CI)
    assert books.standing(CI) == (0, 60)
    assert books.settle(reservation, spend(15)) == Settled(reservation, (CI,), 15, 0)
    assert books.standing(CI) == (15, 0)


def test_the_last_token_of_a_cap_can_be_reserved_and_no_more() -> None:
    books = Books(balance(CI, 100))
    books.granted(100, CI)
    assert books.refused(1, CI).standing.available == 0


def test_caps_on_key_and_account_are_reserved_together_or_not_at_all() -> None:
    books = Books(balance(ACME, 100), balance(CI, 80), balance(DEV, 80))
    books.granted(80, ACME, CI)
    refused = books.refused(40, ACME, DEV)
    assert refused.standing == Standing(ACME, 100, BALANCE, 0, 80, None)
    assert books.standing(DEV) == (0, 0)
    assert books.standing(ACME) == (0, 80)


def test_a_scope_without_a_cap_admits_everything_and_is_counted() -> None:
    books = Books(balance(CI, 100))
    books.spent(10**9, ANONYMOUS)
    assert standing_of(books.accounts, ANONYMOUS, books.now_ms) is None
    assert books.accounts.lifetime(ANONYMOUS).tokens == 10**9
    assert books.accounts.lifetime(CI) == Lifetime()


def test_only_capped_scopes_have_standings() -> None:
    books = Books(balance(ACME, 100), rolling(CI, 50))
    books.spent(20, ACME, CI)
    books.now_ms += 1000
    standings = books.accounts.standings((ACME, DEV, CI), books.now_ms)
    assert standings == (
        Standing(ACME, 100, BALANCE, 20, 0, None),
        Standing(CI, 50, cap_windows.rolling(WINDOW_MS), 20, 0, COUNTS_MS - 1000),
    )


def test_a_refusal_and_a_question_change_nothing() -> None:
    books = Books(rolling(CI, 100))
    books.spent(70, CI)
    books.now_ms += COUNTS_MS + 1
    before = msgspec.json.encode(books.accounts.dump())
    books.accounts.reserve(books.now_ms, (CI,), 1000)
    books.accounts.reserve(books.now_ms, (CI,), 10)
    standing_of(books.accounts, CI, books.now_ms)
    books.accounts.settle(books.now_ms, ReservationId(1), spend(5))
    assert msgspec.json.encode(books.accounts.dump()) == before


def test_a_reservation_remembers_its_request_in_the_alphabet_of_the_journal() -> None:
    books = Books()
    entries, _ = books.accounts.reserve(books.now_ms, (CI,), 5, request_id="a b@c")
    books.apply(entries)
    assert books.accounts.reservations() == (
        OpenReservation(ReservationId(1), (CI,), 5, books.now_ms, "a%20b%40c", None),
    )


@pytest.mark.parametrize("scopes", [(), (CI, CI)])
def test_scopes_that_are_missing_or_named_twice_are_a_bug(scopes: tuple[Scope, ...]) -> None:
    with pytest.raises(ValueError, match="scopes"):
        Accounts().reserve(0, scopes, 1)


def test_a_negative_amount_is_a_bug() -> None:
    books = Books()
    with pytest.raises(ValueError, match="-1"):
        books.reserve(-1, CI)
    with pytest.raises(ValueError, match="-1"):
        books.settle(books.granted(1, CI), Charge(-1, 0, 0, "settle", 0))


def test_amounts_beyond_what_json_can_carry_are_taken_as_the_largest_that_it_can() -> None:
    books = Books(balance(CI, AMOUNT_MAX))
    books.granted(1, CI)
    assert books.refused(10**30, DEV, CI).asked == AMOUNT_MAX
    reservation = books.granted(10**30, DEV)
    assert books.settle(reservation, Charge(10**40, 10**40, 10**39, "settle", 10**40)) == Settled(
        reservation, (DEV,), AMOUNT_MAX, 0
    )
    books.spent(10**30, DEV)
    assert books.accounts.lifetime(DEV).tokens == AMOUNT_MAX
    books.configure(balance(DEV, AMOUNT_MAX))
    assert books.refused(1, DEV).standing.spent == AMOUNT_MAX


# When to come back


def test_a_balance_tells_nobody_to_come_back() -> None:
    books = Books(balance(CI, 100))
    books.granted(100, CI)
    refused = books.refused(10, CI)
    assert (refused.fits_in_ms, refused.exact, refused.asked) == (None, False, 10)


def test_a_rolling_cap_admits_again_exactly_when_it_said() -> None:
    books = Books(rolling(CI, 100))
    books.spent(60, CI)
    books.now_ms += 4000
    books.spent(40, CI)
    books.now_ms += 1000
    refused = books.refused(50, CI)
    assert (refused.fits_in_ms, refused.exact) == (COUNTS_MS - 5000, True)
    assert refused.fits_in_ms is not None
    books.now_ms += refused.fits_in_ms - 1
    assert books.refused(50, CI).fits_in_ms == 1
    books.now_ms += 1
    books.granted(50, CI)


def test_a_request_larger_than_a_rolling_cap_never_fits_and_says_so() -> None:
    books = Books(rolling(CI, 100))
    refused = books.refused(101, CI)
    assert refused.fits_in_ms is None
    assert refused.asked > refused.standing.hard_cap
    assert refused.standing.window_ms == WINDOW_MS


def test_a_rolling_cap_blocked_by_open_reservations_alone_does_not_claim_to_know() -> None:
    books = Books(rolling(CI, 100))
    books.spent(30, CI)
    books.granted(70, CI)
    assert books.refused(20, CI).exact
    refused = books.refused(31, CI)
    assert (refused.fits_in_ms, refused.exact) == (1000, False)


def test_what_waiting_cannot_cure_is_told_first() -> None:
    books = Books(rolling(ACME, 100), balance(CI, 50))
    books.granted(50, ACME, CI)
    assert books.refused(60, ACME, CI).standing.scope == CI
    assert books.refused(101, ACME, CI).standing.scope == CI
    books.configure(rolling(ACME, 40), rolling(CI, 60))
    assert books.refused(50, ACME, CI).standing.scope == ACME


def test_of_two_caps_that_take_time_the_longer_is_told() -> None:
    books = Books(rolling(ACME, 100), rolling(CI, 50, 20_000))
    books.spent(50, ACME, CI)
    books.now_ms += 1000
    books.spent(50, ACME, DEV)
    refused = books.refused(50, ACME, CI)
    assert (refused.standing.scope, refused.fits_in_ms) == (CI, 20_000 + 19 + 1 - 1000)
    assert refused.exact


def test_a_time_is_not_exact_while_a_reservation_blocks_another_cap() -> None:
    books = Books(rolling(ACME, 100), rolling(CI, 50))
    books.spent(50, ACME, CI)
    books.granted(100 - 50, ACME, DEV)
    books.configure(rolling(ACME, 50), rolling(CI, 50))
    refused = books.refused(10, ACME, CI)
    assert (refused.standing.scope, refused.fits_in_ms) == (CI, COUNTS_MS)
    assert not refused.exact


# Settling


def test_closing_twice_is_a_no_op() -> None:
    books = Books(balance(CI, 100))
    reservation = books.granted(60, CI)
    books.settle(reservation, spend(15))
    before = books.accounts.dump()
    assert books.settle(reservation, spend(15)) == Unknown(reservation)
    assert books.settle(ReservationId(99), spend(15)) == Unknown(ReservationId(99))
    assert books.accounts.dump() == before


def test_a_release_gives_everything_back() -> None:
    books = Books(rolling(CI, 100))
    books.settle(books.granted(100, CI), spend(0, "release"))
    assert books.standing(CI) == (0, 0)
    books.granted(100, CI)


def test_an_overrun_is_recorded_in_full_and_reported() -> None:
    books = Books(balance(CI, 100))
    reservation = books.granted(100, CI)
    assert books.settle(reservation, spend(130)) == Settled(reservation, (CI,), 130, 30)
    assert books.standing(CI) == (130, 0)
    assert books.accounts.lifetime(CI).overrun == 30
    assert books.refused(0, CI).standing.available == 0


def test_lifetime_counters_tell_what_was_counted_from_what_was_guessed() -> None:
    books = Books()
    closings: dict[Why, int] = {"settle": 30, "abort": 9, "release": 0, "cut": 12, "unmetered": 6}
    for why, tokens in closings.items():
        books.settle(books.granted(30, ACME, CI), spend(tokens, why))
    assert books.accounts.lifetime(CI) == Lifetime(
        tokens=57, prompt=38, completion=19, requests=5, uncertain=27, overrun=0
    )
    assert books.accounts.lifetime(ACME) == books.accounts.lifetime(CI)


def test_time_never_runs_backwards() -> None:
    books = Books(rolling(CI, 100))
    books.spent(100, CI)
    books.now_ms -= 5000
    refused = books.refused(10, CI)
    assert refused.fits_in_ms == COUNTS_MS
    entries, _ = books.accounts.reserve(0, (DEV,), 1)
    assert entries[0].t == books.accounts.now_ms == 1_000_000


# Ghosts


def test_an_open_reservation_of_a_dead_process_stays_for_its_grace_and_is_charged_in_full() -> None:
    books = Books(rolling(CI, 100))
    books.granted(60, CI)
    books.apply(books.accounts.ghosts(books.now_ms, 30_000))
    assert books.accounts.unresolved_tokens == 60
    assert books.accounts.next_deadline() == books.now_ms + 30_000
    books.now_ms += 29_999
    assert books.accounts.tick(books.now_ms) == ()
    assert books.standing(CI) == (0, 60)
    books.now_ms += 1
    books.apply(books.accounts.tick(books.now_ms))
    assert books.standing(CI) == (60, 0)
    assert books.accounts.lifetime(CI) == Lifetime(tokens=60, requests=1, uncertain=60)
    assert books.accounts.next_deadline() is None
    assert books.accounts.open_reservations == books.accounts.unresolved_tokens == 0


def test_a_second_crash_gives_a_ghost_no_second_grace() -> None:
    books = Books()
    books.granted(10, CI)
    books.apply(books.accounts.ghosts(books.now_ms, 30_000))
    deadline = books.accounts.next_deadline()
    books.now_ms += 10_000
    books.granted(7, CI)
    second = books.accounts.ghosts(books.now_ms, 30_000)
    assert [entry.i for entry in second] == [2]
    books.apply(second)
    assert books.accounts.next_deadline() == deadline
    books.now_ms += 30_000
    assert [(entry.i, entry.a, entry.y) for entry in books.accounts.tick(books.now_ms)] == [
        (1, 10, "crash"),
        (2, 7, "crash"),
    ]


def test_a_reservation_whose_owner_lives_never_expires() -> None:
    books = Books(rolling(CI, 100))
    books.granted(60, CI)
    books.now_ms += 10**9
    assert books.accounts.tick(books.now_ms) == ()
    assert books.accounts.next_deadline() is None
    assert books.standing(CI) == (0, 60)


def test_a_ghost_that_is_settled_is_gone() -> None:
    books = Books()
    reservation = books.granted(10, CI)
    books.apply(books.accounts.ghosts(books.now_ms, 30_000))
    books.settle(reservation, spend(3))
    assert books.accounts.next_deadline() is None


# Configuration


def test_caps_that_are_as_they_should_be_need_no_entry() -> None:
    books = Books(balance(ACME, 100), rolling(CI, 50))
    assert books.configure(rolling(CI, 50), balance(ACME, 100)) == ()


def test_a_cap_lowered_takes_nothing_back_and_one_raised_counts_at_once() -> None:
    books = Books(balance(CI, 100))
    books.spent(50, CI)
    reservation = books.granted(40, CI)
    assert books.configure(balance(CI, 60)) == (
        LimitEntry(books.now_ms, limit_id(CI), CI, "tok", "balance", 60),
    )
    assert books.standing(CI) == (50, 40)
    assert books.refused(1, CI).standing.available == 0
    books.settle(reservation, spend(40))
    assert books.standing(CI) == (90, 0)
    books.configure(balance(CI, 91))
    books.granted(1, CI)


@pytest.mark.parametrize("cap", [balance(CI, 100), rolling(CI, 100)])
def test_removing_a_cap_and_adding_it_again_is_no_reset(cap: Cap) -> None:
    books = Books(cap)
    books.spent(70, CI)
    reservation = books.granted(20, CI)
    assert books.configure() == (DropEntry(books.now_ms, cap.limit_id),)
    assert books.configure() == ()
    assert standing_of(books.accounts, CI, books.now_ms) is None
    books.settle(reservation, spend(15))
    books.spent(10, CI)
    books.configure(cap)
    assert books.standing(CI) == (95, 0)
    assert books.refused(6, CI).standing.available == 5


def test_a_new_cap_counts_open_reservations_at_once() -> None:
    books = Books()
    books.granted(70, ACME, CI)
    books.granted(5, ACME, DEV)
    books.configure(rolling(CI, 50))
    assert books.standing(CI) == (0, 70)
    assert books.refused(1, CI).fits_in_ms == 1000


def test_a_new_balance_begins_with_everything_that_was_ever_spent() -> None:
    books = Books()
    books.spent(70, CI)
    books.configure(balance(CI, 100))
    assert books.standing(CI) == (70, 0)


def test_a_rolling_cap_that_becomes_a_balance_begins_with_everything_ever_spent() -> None:
    books = Books(rolling(CI, 100))
    books.spent(70, CI)
    books.now_ms += COUNTS_MS
    books.spent(60, CI)
    reservation = books.granted(5, CI)
    books.configure(balance(CI, 200))
    assert books.standing(CI) == (130, 5)
    books.settle(reservation, spend(5))
    assert books.standing(CI) == (135, 0)


def test_a_balance_that_becomes_rolling_begins_empty_but_for_open_reservations() -> None:
    books = Books(balance(CI, 100))
    books.spent(70, CI)
    books.granted(20, CI)
    books.configure(rolling(CI, 100))
    assert books.standing(CI) == (0, 20)


def test_a_changed_window_carries_what_still_counts() -> None:
    books = Books(rolling(CI, 100))
    books.spent(10, CI)
    books.now_ms += COUNTS_MS
    books.spent(20, CI)
    books.now_ms += 5000
    books.spent(40, CI)
    books.configure(rolling(CI, 100, 50_000))
    assert books.standing(CI) == (60, 0)
    books.configure(rolling(CI, 100, 5000))
    assert books.standing(CI) == (60, 0)
    books.now_ms += 6
    assert books.standing(CI) == (40, 0)


def test_a_changed_window_is_the_same_after_a_restart() -> None:
    """A window forgets lazily; what it still happens to remember must not come back to life."""
    books = Books(rolling(CI, 100))
    books.spent(10, CI)
    books.now_ms += COUNTS_MS
    again = Accounts.load(books.accounts.dump())
    again.apply(MarkEntry(books.now_ms))
    again = Accounts.load(again.dump())
    entries = books.accounts.configure(books.now_ms, [rolling(CI, 100, 50_000)])
    for entry in entries:
        again.apply(entry)
    books.apply(entries)
    assert again.dump() == books.accounts.dump()
    assert books.standing(CI) == (0, 0)


@pytest.mark.parametrize(
    "caps",
    [
        [rolling(CI, 1), rolling(CI, 2)],
        [balance(CI, -1)],
        [balance(CI, AMOUNT_MAX + 1)],
        [rolling(CI, 1, 0)],
        [rolling(CI, 1, AMOUNT_MAX + 1)],
    ],
)
def test_caps_that_cannot_be_are_a_bug(caps: list[Cap]) -> None:
    with pytest.raises(ValueError, match="a cap that cannot be"):
        Accounts().configure(0, caps)


# Template tokens


def test_template_tokens_only_grow() -> None:
    books = Books()
    assert books.accounts.template_tokens("Qwen/Qwen3 8B") == 0
    entries = books.accounts.learn(books.now_ms, "Qwen/Qwen3 8B", 12)
    assert entries == (LearnEntry(books.now_ms, ModelLabel("Qwen/Qwen3%208B"), 12),)
    books.apply(entries)
    assert books.accounts.learn(books.now_ms, "Qwen/Qwen3 8B", 12) == ()
    assert books.accounts.learn(books.now_ms, "Qwen/Qwen3 8B", -5) == ()
    books.apply(books.accounts.learn(books.now_ms, "Qwen/Qwen3 8B", 13))
    assert books.accounts.template_tokens("Qwen/Qwen3 8B") == 13


def test_what_can_be_learned_is_bounded() -> None:
    accounts = Accounts()
    for number in range(LEARNED_MODELS_MAX):
        accounts.apply(LearnEntry(0, ModelLabel(f"m{number}"), 1))
    assert accounts.learn(0, "one-more", 5) == ()
    assert accounts.learn(0, "m7", 5) != ()
    assert Accounts().learn(0, "x" * (MODEL_LABEL_LENGTH_MAX + 1), 5) == ()


# What cannot happen


def illegal_entries() -> list[Entry]:
    """Each is refused by the books of `test_an_illegal_entry_raises_and_changes_nothing`."""
    t = 1_000_000
    one, two, three = ReservationId(1), ReservationId(2), ReservationId(3)
    return [
        MarkEntry(t - 1),
        HoldEntry(t, three, (CI,), 61),
        HoldEntry(t, three, (DEV, CI), 61),
        HoldEntry(t, two, (CI,), 1),
        HoldEntry(t, ReservationId(4), (CI,), 1),
        CloseEntry(t, three, 1, "settle"),
        GhostEntry(t, three, t + 1),
        GhostEntry(t, two, t + 1),
        DropEntry(t, limit_id(DEV)),
        DropEntry(t, LimitId("key:ci")),
        DropEntry(t, limit_id(ACME)),
        LimitEntry(t, limit_id(DEV), DEV, "tok", "rolling", 5, 7),
        LimitEntry(t, LimitId("key:ci/tok/balance:7"), CI, "tok", "balance", 5, 7),
        LimitEntry(t, LimitId("key:ci/tok/rolling"), CI, "tok", "rolling", 5),
        LimitEntry(t, LimitId("key:ci/tok/held"), CI, "tok", "held", 5),
        LimitEntry(t, LimitId("key:ci/con/balance"), CI, "con", "balance", 5),
        LimitEntry(t, limit_id(CI, DAYS), CI, "tok", "calendar", 5, p="day", z="UTC", g=9, e=9),
        RollEntry(t, limit_id(CI), t + 1, t + 1, t + 1),
        RollEntry(t, limit_id(CI, DAYS), t + 1, t + 1, t + 1),
        LearnEntry(t, ModelLabel("m"), 5),
        CloseEntry(t - 1, one, 1, "settle"),
    ]


@pytest.mark.parametrize("entry", illegal_entries(), ids=repr)
def test_an_illegal_entry_raises_and_changes_nothing(entry: Entry) -> None:
    books = Books(balance(CI, 100), balance(ACME, 100))
    books.configure(balance(CI, 100))
    books.granted(30, CI)
    books.granted(10, CI)
    books.apply([GhostEntry(books.now_ms, ReservationId(2), 5)])
    books.apply([LearnEntry(books.now_ms, ModelLabel("m"), 5)])
    before = books.accounts.dump()
    with pytest.raises(IllegalEntry):
        books.accounts.apply(entry)
    assert books.accounts.dump() == before


# Snapshots


def snapshot() -> Snapshot:
    books = Books(balance(ACME, 1000), rolling(CI, 500))
    books.spent(70, ACME, CI)
    books.now_ms += 900
    books.spent(20, ACME, CI)
    books.granted(10, ACME, CI)
    books.apply(books.accounts.ghosts(books.now_ms, 5))
    books.granted(15, ACME, CI)
    books.apply(books.accounts.learn(books.now_ms, "m", 5))
    books.configure(rolling(CI, 500))
    return books.accounts.dump()


def test_a_snapshot_is_the_whole_state() -> None:
    whole = snapshot()
    again = msgspec.json.decode(msgspec.json.encode(whole), type=Snapshot)
    assert again == whole
    accounts = Accounts.load(again)
    assert accounts.dump() == whole
    assert accounts.next_deadline() == 1_000_905
    assert accounts.standings((CI,), 0)[0].reserved == 25
    assert standing_of(accounts, ACME, 0) is None


def with_charges(limit: LimitBooks, *charges: tuple[int, int]) -> LimitBooks:
    return msgspec.structs.replace(limit, books=WindowBooks(charges=charges))


def tampered() -> dict[str, Snapshot]:
    whole = snapshot()
    acme, ci = whole.limits
    first, second = whole.holds
    replace = msgspec.structs.replace
    return {
        "unsorted limits": replace(whole, limits=(ci, acme)),
        "a limit twice": replace(whole, limits=(acme, ci, ci)),
        "an expired charge": replace(
            whole, limits=(acme, with_charges(ci, (1, 5), *ci.books.charges))
        ),
        "charges out of order": replace(
            whole, limits=(acme, with_charges(ci, *ci.books.charges[::-1]))
        ),
        "a balance that forgot": replace(whole, limits=(replace(acme, books=WindowBooks(89)), ci)),
        "a window that cannot be": replace(
            whole, limits=(replace(acme, window=CapWindow("balance", 5)), ci)
        ),
        "a cap that cannot be": replace(whole, limits=(replace(acme, hard_cap=-1), ci)),
        "reservations out of order": replace(whole, holds=(second, first)),
        "a reservation twice": replace(whole, holds=(first, first, second)),
        "a number used again": replace(whole, next=second.reservation_id),
        "a request never counted": replace(whole, life=whole.life[:1]),
        "a negative charge": replace(whole, limits=(acme, with_charges(ci, (1000000, -5)))),
    }


@pytest.mark.parametrize("name", tampered())
def test_a_snapshot_that_no_dump_can_have_made_is_refused(name: str) -> None:
    with pytest.raises(BrokenBooks):
        Accounts.load(tampered()[name])


def test_check_adds_up_what_is_reserved() -> None:
    books = Books(balance(CI, 100))
    books.granted(30, CI)
    books.accounts._limits.on[(CI,)].every[0].reserved = 29
    with pytest.raises(BrokenBooks, match="29 reserved, not 30"):
        books.accounts.check()

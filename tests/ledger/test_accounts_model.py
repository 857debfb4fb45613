"""Accounts against an oracle that keeps every fact for ever, driven by hypothesis.

The oracle is told commands and their answers, never entries: one that is fed by what the accounts
decided repeats their mistakes. Windows have three grains here, so that merging is the common case.
"""

from collections import deque

import msgspec
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.cap_windows import BALANCE, rolling
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import (
    ANONYMOUS,
    Cap,
    Entry,
    Granted,
    Refused,
    ReservationId,
    Scope,
    Settled,
    Snapshot,
    Unknown,
    account_scope,
    key_scope,
)
from cortexd.ledger.recovery import replay
from tests.ledger.oracle import Oracle
from tests.ledger.scribe import Scribe
from tests.ledger.workbench import standing_of

BUCKETS = 3
ACME, ONE, TWO = account_scope("acme"), key_scope("one"), key_scope("two")
SCOPES = st.sampled_from([ACME, ONE, TWO, ANONYMOUS])
REQUESTS = st.sampled_from([(ACME, ONE), (ACME, TWO), (ONE,), (ANONYMOUS,)])
WINDOWS = st.sampled_from([20, 60, 100, 7, 1, 2100, None])
STEPS = st.one_of(*[st.integers(0, 3)] * 3, *[st.integers(0, 25)] * 3, st.integers(0, 3000))


class Memory(msgspec.Struct, frozen=True):
    """From when on a cap must remember, and how much longer than its window it may.

    `after_closings`: settlements before this one lie before the cap began to look. `after_ms`: what
    was settled until then was forgotten by a shorter window that the cap once had.
    """

    after_closings: int
    after_ms: int
    slack_ms: int


def grain_ms(window_ms: int) -> int:
    return -(-window_ms // BUCKETS)


class LedgerMachine(RuleBasedStateMachine):
    """Everything at once: requests, overruns, crashes, restarts, and an operator who edits caps."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 5
        self.oracle: Oracle[Scope] = Oracle()
        self.scribe = Scribe(buckets=BUCKETS)
        self.caps: dict[Scope, Cap] = {}
        self.ever: dict[tuple[Scope, int], Memory] = {}
        self.deadlines: dict[ReservationId, int] = {}
        self.worth_waiting_ms = 0
        self.configure(
            [Cap(ACME, 30, rolling(90)), Cap(ONE, 20, rolling(60)), Cap(TWO, 25, rolling(100))]
        )

    @property
    def accounts(self) -> Accounts:
        return self.scribe.accounts

    def happen(self, entries: tuple[Entry, ...]) -> None:
        self.scribe.write(entries)

    # What the oracle says about a cap: it counts at least this, and at most that.

    def used(self, scope: Scope, window_ms: int | None) -> tuple[int, int]:
        reserved = self.oracle.reserved(scope)
        if window_ms is None:
            return (reserved + self.oracle.spent(scope),) * 2
        memory = self.ever[scope, window_ms]
        tolerated_ms = window_ms + window_ms // 1024 + 1 + memory.slack_ms
        at_least = self.oracle.spent(
            scope,
            after_ms=max(self.now_ms - window_ms, memory.after_ms),
            after_closings=memory.after_closings,
        )
        at_most = self.oracle.spent(
            scope,
            after_ms=self.now_ms - tolerated_ms,
            after_closings=memory.after_closings,
        )
        return reserved + at_least, reserved + at_most

    @rule(step_ms=STEPS)
    def time_passes(self, step_ms: int) -> None:
        self.now_ms += step_ms

    @rule(scope=SCOPES, hard_cap=st.integers(5, 40), window_ms=WINDOWS)
    def set_cap(self, scope: Scope, hard_cap: int, window_ms: int | None) -> None:
        others = [cap for cap in self.caps.values() if cap.scope != scope]
        window = BALANCE if window_ms is None else rolling(window_ms)
        self.configure([*others, Cap(scope, hard_cap, window)])

    @rule(scope=SCOPES, for_ms=STEPS)
    def remove_cap_for_a_while(self, scope: Scope, for_ms: int) -> None:
        before = list(self.caps.values())
        self.configure([cap for cap in before if cap.scope != scope])
        self.now_ms += for_ms
        self.configure(before)

    @rule(scope=SCOPES)
    def remove_cap(self, scope: Scope) -> None:
        self.configure([cap for cap in self.caps.values() if cap.scope != scope])

    def configure(self, caps: list[Cap]) -> None:
        self.caps = {cap.scope: cap for cap in caps}
        self.happen(self.accounts.configure(self.now_ms, self.caps.values()))
        assert self.accounts.configure(self.now_ms, self.caps.values()) == ()
        for scope, cap in self.caps.items():
            if cap.window.ms:
                self.ever[scope, cap.window.ms] = self.memory_of(scope, cap.window.ms)

    def memory_of(self, scope: Scope, window_ms: int) -> Memory:
        """A window goes on where it was; a new one knows what the best of the others knows."""
        if (scope, window_ms) in self.ever:
            return self.ever[scope, window_ms]
        lengths = sorted(length for kin, length in self.ever if kin == scope)
        if not lengths:
            return Memory(len(self.oracle.closed), -1, grain_ms(window_ms))
        best_ms = next((length for length in lengths if length >= window_ms), lengths[-1])
        best = self.ever[scope, best_ms]
        return Memory(
            after_closings=best.after_closings,
            after_ms=max(best.after_ms, self.now_ms - best_ms),
            slack_ms=best.slack_ms + grain_ms(window_ms),
        )

    @rule()
    def wait_as_told(self) -> None:
        self.now_ms += self.worth_waiting_ms
        self.worth_waiting_ms = 0

    @rule(scopes=REQUESTS, tokens=st.integers(1, 15))
    def spend(self, scopes: tuple[Scope, ...], tokens: int) -> None:
        """A short request: what fills windows."""
        if self.reserve(scopes, tokens):
            self.close(max(self.oracle.open), tokens)

    @rule(scopes=REQUESTS, tokens=st.integers(0, 15))
    def begin(self, scopes: tuple[Scope, ...], tokens: int) -> None:
        self.reserve(scopes, tokens)

    def reserve(self, scopes: tuple[Scope, ...], tokens: int) -> bool:
        capped = [self.caps[scope] for scope in scopes if scope in self.caps]
        used = [(cap, *self.used(cap.scope, cap.window.ms or None)) for cap in capped]
        entries, answer = self.accounts.reserve(self.now_ms, scopes, tokens)
        self.happen(entries)
        if isinstance(answer, Granted):
            assert all(at_least + tokens <= cap.hard_cap for cap, at_least, _ in used)
            self.oracle.reserve(answer.reservation_id, scopes, tokens)
            return True
        assert any(at_most + tokens > cap.hard_cap for cap, _, at_most in used)
        self.check_refusal(answer, scopes, tokens)
        return False

    def check_refusal(self, refused: Refused, scopes: tuple[Scope, ...], tokens: int) -> None:
        cap = self.caps[refused.standing.scope]
        standing = standing_of(self.accounts, cap.scope, self.now_ms)
        assert standing == refused.standing
        assert refused.asked == tokens
        alone = [self.accounts.reserve(self.now_ms, (each,), tokens)[1] for each in scopes]
        times = [each.fits_in_ms for each in alone if isinstance(each, Refused)]
        assert refused.fits_in_ms == (None if None in times else max(map(int, filter(None, times))))
        if refused.fits_in_ms is not None:
            assert refused.exact == all(each.exact for each in alone if isinstance(each, Refused))
        assert standing.spent + standing.reserved + tokens > cap.hard_cap == standing.hard_cap
        if refused.fits_in_ms is None:
            assert not cap.window.ms or tokens > cap.hard_cap
            return
        at_ms = self.now_ms + refused.fits_in_ms
        if refused.exact:
            assert refused.fits_in_ms > 0
            assert isinstance(self.accounts.reserve(at_ms, scopes, tokens)[1], Granted)
            assert isinstance(self.accounts.reserve(at_ms - 1, scopes, tokens)[1], Refused)
            self.worth_waiting_ms = refused.fits_in_ms
        else:
            assert refused.fits_in_ms >= 1000

    @precondition(lambda self: self.oracle.open)
    @rule(data=st.data(), percent=st.integers(0, 120))
    def settle(self, data: st.DataObject, percent: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.oracle.open)))
        self.close(number, self.oracle.open[number][1] * percent // 100)

    def close(self, number: int, tokens: int) -> None:
        scopes, reserved = self.oracle.open[number]
        entries, answer = self.accounts.settle(
            self.now_ms, ReservationId(number), Charge(tokens, tokens, 0, "settle", 0)
        )
        assert answer == Settled(ReservationId(number), scopes, tokens, max(0, tokens - reserved))
        self.happen(entries)
        self.oracle.settle(number, tokens, self.now_ms)
        self.deadlines.pop(ReservationId(number), None)

    @rule(number=st.integers(0, 60))
    def settle_what_is_not_open(self, number: int) -> None:
        if number not in self.oracle.open:
            answer = self.accounts.settle(
                self.now_ms, ReservationId(number), Charge(5, 5, 0, "settle", 0)
            )
            assert answer == ((), Unknown(ReservationId(number)))

    @rule()
    def restart_with_a_snapshot(self) -> None:
        snapshot = self.accounts.dump()
        again = msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)
        assert again == snapshot
        self.scribe = Scribe(
            Accounts.load(again, buckets=BUCKETS), seg=self.scribe.seg + 1, n=self.scribe.n
        )
        assert self.accounts.dump() == snapshot

    @rule(grace_ms=st.integers(1, 50))
    def crash(self, grace_ms: int) -> None:
        live = self.accounts.dump()
        recovered = replay(self.scribe.data, buckets=BUCKETS)
        assert recovered.accounts.dump() == live
        assert (recovered.n, recovered.torn) == (self.scribe.n, None)
        self.scribe = Scribe(recovered.accounts, seg=self.scribe.seg + 1, n=recovered.n)
        for number in self.oracle.open:
            self.deadlines.setdefault(ReservationId(number), self.now_ms + grace_ms)
        self.happen(self.accounts.ghosts(self.now_ms, grace_ms))

    @rule()
    def tick(self) -> None:
        due = {number for number, until_ms in self.deadlines.items() if until_ms <= self.now_ms}
        entries = self.accounts.tick(self.now_ms)
        assert {entry.i for entry in entries} == due
        self.happen(entries)
        for number in due:
            self.oracle.settle(number, self.oracle.open[number][1], self.now_ms)
            del self.deadlines[number]

    @rule(model=st.sampled_from(["a", "b c"]), tokens=st.integers(0, 9))
    def learn(self, model: str, tokens: int) -> None:
        before = self.accounts.template_tokens(model)
        self.happen(self.accounts.learn(self.now_ms, model, tokens))
        assert self.accounts.template_tokens(model) == max(before, tokens)

    @rule()
    def mark(self) -> None:
        self.happen(self.accounts.mark(self.now_ms))

    @invariant()
    def the_books_agree_with_the_oracle(self) -> None:
        self.accounts.check()
        assert self.accounts.open_reservations == len(self.oracle.open)
        assert self.accounts.next_deadline() == min(self.deadlines.values(), default=None)
        for scope in (ACME, ONE, TWO, ANONYMOUS):
            assert self.accounts.lifetime(scope).tokens == self.oracle.spent(scope)
            standing = standing_of(self.accounts, scope, self.now_ms)
            if scope not in self.caps:
                assert standing is None
                continue
            assert standing is not None
            at_least, at_most = self.used(scope, self.caps[scope].window.ms or None)
            assert at_least <= standing.spent + standing.reserved <= at_most


class HonestMachine(RuleBasedStateMachine):
    """The promise itself, judged from outside: no window of tokens really consumed exceeds a cap.

    Neurons consume what they were granted token by token, at any instant from the reservation to
    its settlement, and for a grace after the ledger's process died. The caps stay as they are.
    """

    ACME_CAP = Cap(ACME, 60)
    ONE_CAP = Cap(ONE, 20, rolling(30))
    TWO_CAP = Cap(TWO, 25, rolling(100))
    GRACE_MS = 40

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 1000
        self.accounts = Accounts(buckets=BUCKETS)
        for entry in self.accounts.configure(
            self.now_ms, [self.ACME_CAP, self.ONE_CAP, self.TWO_CAP]
        ):
            self.accounts.apply(entry)
        self.left: dict[ReservationId, int] = {}
        self.used: dict[ReservationId, int] = {}
        self.scopes: dict[ReservationId, tuple[Scope, ...]] = {}
        self.consumed: deque[tuple[tuple[Scope, ...], int, int]] = deque()

    @rule(step_ms=st.one_of(st.integers(0, 3), st.integers(0, 40)))
    def time_passes(self, step_ms: int) -> None:
        self.now_ms += step_ms
        for entry in self.accounts.tick(self.now_ms):
            self.accounts.apply(entry)
            del self.left[entry.i]

    @rule(scopes=st.sampled_from([(ACME, ONE), (ACME, TWO), (ONE, TWO)]), tokens=st.integers(1, 12))
    def reserve(self, scopes: tuple[Scope, ...], tokens: int) -> None:
        entries, answer = self.accounts.reserve(self.now_ms, scopes, tokens)
        for entry in entries:
            self.accounts.apply(entry)
        if isinstance(answer, Granted):
            self.left[answer.reservation_id] = tokens
            self.used[answer.reservation_id] = 0
            self.scopes[answer.reservation_id] = scopes

    @precondition(lambda self: self.left)
    @rule(data=st.data(), tokens=st.integers(1, 12))
    def consume(self, data: st.DataObject, tokens: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.left)))
        tokens = min(tokens, self.left[number])
        self.left[number] -= tokens
        self.used[number] += tokens
        self.consumed.append((self.scopes[number], tokens, self.now_ms))

    @precondition(lambda self: self.left)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.left)))
        cost = Charge(self.used[number], self.used[number], 0, "settle", 0)
        for entry in self.accounts.settle(self.now_ms, number, cost)[0]:
            self.accounts.apply(entry)
        del self.left[number]

    @rule()
    def crash(self) -> None:
        self.accounts = Accounts.load(self.accounts.dump(), buckets=BUCKETS)
        for entry in self.accounts.ghosts(self.now_ms, self.GRACE_MS):
            self.accounts.apply(entry)

    @invariant()
    def no_cap_is_ever_exceeded(self) -> None:
        for cap in (self.ACME_CAP, self.ONE_CAP, self.TWO_CAP):
            standing = standing_of(self.accounts, cap.scope, self.now_ms)
            assert standing is not None
            assert standing.spent + standing.reserved <= cap.hard_cap
            facts = [
                (at_ms, tokens) for scopes, tokens, at_ms in self.consumed if cap.scope in scopes
            ]
            # A window ends with each token, so that these are all that can matter.
            for end_ms, _ in facts:
                begin_ms = end_ms - cap.window.ms if cap.window.ms else -1
                within = sum(tokens for at_ms, tokens in facts if begin_ms < at_ms <= end_ms)
                assert within <= cap.hard_cap


_SETTINGS = settings(
    max_examples=max(100, settings().max_examples),  # --hypothesis-profile=release: more
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
LedgerMachine.TestCase.settings = _SETTINGS
HonestMachine.TestCase.settings = _SETTINGS
TestLedger = pytest.mark.slow(LedgerMachine.TestCase)
TestHonest = pytest.mark.slow(HonestMachine.TestCase)

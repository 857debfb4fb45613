"""The books alone, with every kind of cap at once, against an oracle that keeps every fact.

No disk and no tasks: thousands of steps a second. The oracle is told commands and answers, never
entries, and counts by adding up; windows have three grains, so that merging is the common case. An
operator edits caps and gives them other windows, which may know of the past what older ones
remember; owners die, and the books are written down and read back.
"""

import random
from collections import Counter
from collections.abc import Sequence

import msgspec

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.cap_windows import BALANCE, HELD, CapWindow, Unit, calendar, fixed, rolling
from cortexd.ledger.charging import Charge
from cortexd.ledger.entries import (
    ANONYMOUS,
    Cap,
    Entry,
    Granted,
    LimitId,
    Refused,
    ReservationId,
    Scope,
    Snapshot,
    Standing,
    account_scope,
    key_scope,
)
from cortexd.ledger.invariants import (
    check_accounts,
    check_answer,
    check_cap_returned,
    check_history,
    check_replay,
)
from tests.sim.memory import BUCKETS, DAY_MS, ZONES, Memory, memory_of

STEPS = 160
GRACE_MS = 40

ACME, ONE, TWO = account_scope("acme"), key_scope("one"), key_scope("two")
SCOPES = (ACME, ONE, TWO, ANONYMOUS)
REQUESTS = ((ACME, ONE), (ACME, ONE), (ACME, TWO), (ONE,), (ANONYMOUS,))
LENGTHS_MS = (7, 20, 60, 100, 2_100, 3_600_000)


def run(seed: int) -> Counter[str]:
    """One ledger's life of many steps. Counts what happened."""
    fuzz = _Fuzz(seed)
    for _ in range(STEPS):
        fuzz.step()
    check_history(fuzz.history)
    return fuzz.tally


class _Fact:
    """One reservation, from its grant on. `end_ms` None: it is open."""

    __slots__ = ("begin_ms", "charged", "due_ms", "end_ms", "scopes", "tokens")

    def __init__(self, scopes: tuple[Scope, ...], tokens: int, begin_ms: int) -> None:
        self.scopes = scopes
        self.tokens = tokens
        self.begin_ms = begin_ms
        self.end_ms: int | None = None
        self.charged = 0
        self.due_ms: int | None = None


class _Fuzz:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"fuzz {seed}")
        self.tally: Counter[str] = Counter()
        self.now_ms = 1_700_000_000_000 + self.random.randrange(DAY_MS)
        self.lengths_ms = self.random.sample(LENGTHS_MS, 2)
        self.facts: dict[ReservationId, _Fact] = {}
        self.accounts = Accounts(buckets=BUCKETS)
        self.start = self.accounts.dump()
        self.entries: list[Entry] = []
        self.history: list[Entry] = []
        self.wait_ms = 0
        self.caps = {cap.limit_id: cap for cap in self.choose_caps()}
        self.away: set[LimitId] = set()
        self.memories: dict[LimitId, Memory] = {}
        self.configure()

    def windows_of(self, lengths_ms: Sequence[int]) -> list[CapWindow]:
        windows = [BALANCE, *(calendar("day", zone) for zone in ZONES)]
        return windows + [shape(ms) for ms in lengths_ms for shape in (rolling, fixed)]

    def choose_caps(self) -> list[Cap]:
        windows = self.windows_of(self.lengths_ms)
        caps: list[Cap] = []
        for scope in (ACME, ONE, TWO):
            chosen = self.random.sample(windows, self.random.choice((1, 1, 2)))
            caps += [Cap(scope, self.amount("tok", window), window) for window in chosen]
            if self.random.random() < 0.4:
                window = self.random.choice(windows)
                caps.append(Cap(scope, self.amount("req", window), window, "req"))
            if self.random.random() < 0.3:
                caps.append(Cap(scope, self.random.randrange(1, 4), HELD, "con"))
        return [
            msgspec.structs.replace(cap, shadow=True) if self.random.random() < 0.15 else cap
            for cap in caps
        ]

    def amount(self, unit: Unit, window: CapWindow) -> int:
        many = window.kind in ("balance", "calendar")
        if unit == "req":
            return self.random.randrange(2, 40 if many else 6)
        return self.random.randrange(10, 300 if many else 45)

    # Commands

    def step(self) -> None:
        choice = self.random.random()
        if choice < 0.35:
            self.pass_time()
        elif choice < 0.65:
            self.reserve()
        elif choice < 0.88:
            self.settle()
        elif choice < 0.93:
            self.edit_caps()
        elif choice < 0.97:
            self.write_down_and_read_back()
        else:
            self.owners_die()
        self.check()

    def happen(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self.accounts.apply(entry)
        self.entries += entries
        self.history += entries

    def pass_time(self) -> None:
        length_ms = self.random.choice((*self.lengths_ms, GRACE_MS))
        longer_ms = length_ms + length_ms // 1024 + 1
        steps = (0, 1, 3, length_ms // 7, length_ms // 3, length_ms - 1, length_ms, longer_ms)
        self.now_ms += self.random.choice((*steps, self.wait_ms, DAY_MS // 5))
        self.wait_ms = 0
        self.happen(self.accounts.roll(self.now_ms, self.now_ms))
        due = {
            i for i, fact in self.open() if fact.due_ms is not None and fact.due_ms <= self.now_ms
        }
        closing = self.accounts.tick(self.now_ms)
        assert {entry.i for entry in closing} == due
        self.happen(closing)
        for number in due:
            self.close(number, self.facts[number].tokens)

    def reserve(self) -> None:
        scopes = self.random.choice(REQUESTS)
        tokens = self.random.randrange(16)
        least = self.random.choice((None, None, None, 1, tokens // 2))
        self.tally["reserve"] += 1
        check_answer(self.accounts, self.now_ms, scopes, tokens)
        entries, answer = self.accounts.reserve(self.now_ms, scopes, tokens, least=least)
        if isinstance(answer, Refused):
            self.check_refused(answer, scopes, tokens if least is None else min(least, tokens))
            return
        self.check_granted(answer, scopes, tokens, least)
        self.happen(entries)
        self.facts[answer.reservation_id] = _Fact(scopes, answer.tokens, self.now_ms)

    def settle(self) -> None:
        owned = [number for number, fact in self.open() if fact.due_ms is None]
        if owned:
            number = self.random.choice(owned)
            reserved = self.facts[number].tokens
            tokens = reserved * self.random.choice((0, 50, 100, 100, 120)) // 100
            cost = Charge(tokens, tokens, 0, "settle", max(0, tokens - reserved))
            self.happen(self.accounts.settle(self.now_ms, number, cost)[0])
            self.close(number, tokens)

    def close(self, number: ReservationId, tokens: int) -> None:
        self.facts[number].end_ms = self.now_ms
        self.facts[number].charged = tokens

    def edit_caps(self) -> None:
        """Raise, lower, take away, bring back, turn into a shadow, or give another window."""
        name = self.random.choice(sorted(self.caps))
        cap = self.caps[name]
        match self.random.choice(("amount", "shadow", "away", "away", "all", *("window",) * 4)):
            case "all":
                self.take_caps_away_and_bring_them_back()
            case "window":
                self.change_window(name, cap)
            case "amount":
                amount = self.amount(cap.unit, cap.window)
                self.caps[name] = msgspec.structs.replace(cap, hard_cap=amount)
            case "shadow":
                self.caps[name] = msgspec.structs.replace(cap, shadow=not cap.shadow)
            case _:
                self.away ^= {name}
        self.configure()

    def change_window(self, name: LimitId, cap: Cap) -> None:
        if cap.unit == "con":
            return
        window = self.random.choice(self.windows_of(LENGTHS_MS))
        amount = self.amount(cap.unit, window)
        changed = msgspec.structs.replace(cap, window=window, hard_cap=amount)
        if changed.limit_id not in self.caps:
            del self.caps[name]
            self.away.discard(name)
            self.caps[changed.limit_id] = changed
            self.tally["windows changed"] += 1

    def take_caps_away_and_bring_them_back(self) -> None:
        self.happen(self.accounts.mark(self.now_ms))
        before = self.accounts.dump()
        for caps in ((), [cap for name, cap in self.caps.items() if name not in self.away]):
            self.happen(self.accounts.configure(self.now_ms, caps))
        check_cap_returned(before, self.accounts.dump())

    def configure(self) -> None:
        caps = [cap for name, cap in self.caps.items() if name not in self.away]
        self.happen(self.accounts.configure(self.now_ms, caps))
        assert self.accounts.configure(self.now_ms, caps) == ()
        for cap in caps:
            if cap.limit_id not in self.memories:
                known = self.memories.values() if self.facts else None
                self.memories[cap.limit_id] = memory_of(cap, known, self.now_ms)

    def write_down_and_read_back(self) -> None:
        snapshot = self.accounts.dump()
        check_accounts(self.accounts)
        check_replay(self.start, self.entries, snapshot, buckets=BUCKETS)
        again = msgspec.json.decode(msgspec.json.encode(snapshot), type=Snapshot)
        self.accounts = Accounts.load(again, buckets=BUCKETS)
        self.start = snapshot
        self.entries = []

    def owners_die(self) -> None:
        self.write_down_and_read_back()
        self.tally["deaths"] += 1
        for _, fact in self.open():
            if fact.due_ms is None:
                fact.due_ms = self.now_ms + GRACE_MS
        self.happen(self.accounts.ghosts(self.now_ms, GRACE_MS))

    # What the oracle says

    def open(self) -> list[tuple[ReservationId, _Fact]]:
        return [(number, fact) for number, fact in self.facts.items() if fact.end_ms is None]

    def live(self, scopes: Sequence[Scope]) -> list[Cap]:
        caps = [cap for name, cap in self.caps.items() if name not in self.away]
        return [cap for cap in caps if cap.scope in scopes]

    def used(self, cap: Cap) -> tuple[int, int]:
        """What counts against a cap now: at least this, and at most that."""
        facts = [fact for fact in self.facts.values() if cap.scope in fact.scopes]
        if cap.unit == "con":
            return (sum(fact.end_ms is None for fact in facts),) * 2
        if cap.unit == "req":
            charges = [(fact.begin_ms, 1) for fact in facts]
            reserved = 0
        else:
            charges = [(fact.end_ms, fact.charged) for fact in facts if fact.end_ms is not None]
            reserved = sum(fact.tokens for fact in facts if fact.end_ms is None)
        surely_since_ms, perhaps_since_ms = self.memories[cap.limit_id].counts_since(self.now_ms)
        least = sum(amount for at_ms, amount in charges if at_ms >= surely_since_ms)
        most = sum(amount for at_ms, amount in charges if at_ms >= perhaps_since_ms)
        return reserved + least, reserved + most

    # What must hold

    def check_granted(
        self, granted: Granted, scopes: tuple[Scope, ...], tokens: int, least: int | None
    ) -> None:
        got = granted.tokens
        self.tally["granted"] += 1
        for cap in self.live(scopes):
            used, _ = self.used(cap)
            assert cap.shadow or used + _cost(cap, got) <= cap.hard_cap, f"{got} under {cap}"
        if got != tokens:
            self.tally["clamped"] += 1
            assert least is not None
            assert least <= got < tokens
            tightest = [cap for cap in self.live(scopes) if cap.unit == "tok" and not cap.shadow]
            left = min(cap.hard_cap - self.used(cap)[1] for cap in tightest)
            assert got >= min(left, tokens - 1), f"{got} where {left} were left"
        asked = tokens if least is None else min(tokens, least)
        shadows = [(cap, *self.used(cap)) for cap in self.live(scopes) if cap.shadow]
        told = granted.would_refuse is not None
        self.tally["shadow refusals"] += told
        if any(used + _cost(cap, asked) > cap.hard_cap for cap, used, _ in shadows):
            assert told, f"no shadow of {shadows} said that {asked} were too much"
        if all(used + _cost(cap, asked) <= cap.hard_cap for cap, _, used in shadows):
            assert not told, f"{granted.would_refuse} of {shadows}"

    def check_refused(self, refused: Refused, scopes: tuple[Scope, ...], tokens: int) -> None:
        self.tally["refused"] += 1
        caps = [cap for cap in self.live(scopes) if not cap.shadow]
        assert any(self.used(cap)[1] + _cost(cap, tokens) > cap.hard_cap for cap in caps), refused
        alone = [self.accounts.reserve(self.now_ms, (scope,), tokens)[1] for scope in scopes]
        times = [each.fits_in_ms for each in alone if isinstance(each, Refused)]
        assert refused.fits_in_ms == (None if None in times else max(map(int, filter(None, times))))
        standing = refused.standing
        assert standing.spent + standing.reserved + refused.asked > standing.hard_cap
        if refused.fits_in_ms is None:
            forever = standing.window.kind == "balance"
            assert forever or refused.asked > standing.hard_cap
        else:
            assert refused.asked <= standing.hard_cap
            assert refused.fits_in_ms > 0
            exact = [each.exact for each in alone if isinstance(each, Refused)]
            assert refused.exact == all(exact)
            self.wait_ms = min(refused.fits_in_ms, DAY_MS)

    def check(self) -> None:
        self.tally["steps"] += 1
        self.accounts.check()
        standings = self.accounts.standings(SCOPES, self.now_ms)
        caps = {cap.limit_id: cap for cap in self.live(SCOPES)}
        assert len(standings) == len(caps)
        for standing in standings:
            self.check_standing(standing, caps[_name(standing)])
        for scope in SCOPES:
            facts = [fact for fact in self.facts.values() if scope in fact.scopes]
            lifetime = self.accounts.lifetime(scope)
            assert lifetime.tokens == sum(fact.charged for fact in facts)
            assert lifetime.requests == len(facts)

    def check_standing(self, standing: Standing, cap: Cap) -> None:
        assert (standing.hard_cap, standing.shadow) == (cap.hard_cap, cap.shadow)
        least, most = self.used(cap)
        assert least <= standing.spent + standing.reserved <= most, f"{standing}: {least} to {most}"


def _cost(cap: Cap, tokens: int) -> int:
    return tokens if cap.unit == "tok" else 1


def _name(standing: Standing) -> LimitId:
    return Cap(standing.scope, 0, standing.window, standing.unit).limit_id

"""Several lives of one ledger on one machine, and a judge outside who counts in true time.

A life serves requests until it is killed, loses power, or its disk fails; sometimes that comes
while it is still being opened. Neurons go on for a while after the process is dead. The wall clock
is set by whoever likes to, machines reboot with dead batteries, boot clocks run fast and slow, and
between lives an operator changes caps. In the end: was more consumed than the caps allow?
"""

import random
from collections import Counter
from collections.abc import Callable

import msgspec

from cortexd.ledger.accounts import Accounts
from cortexd.ledger.cap_windows import HELD, calendar, fixed, rolling
from cortexd.ledger.charging import charge
from cortexd.ledger.clock import OnReboot
from cortexd.ledger.entries import Cap, Entry, Granted, LimitId, ReservationId, Scope
from cortexd.ledger.journal import Journal, JournalFailed, JournalSettings, LedgerProblem
from cortexd.ledger.retention import Retention
from cortexd.ledger.segment import segment_numbers
from tests.ledger.simulated_disk import Crash, Fault, SimulatedDisk
from tests.ledger.workbench import ACCOUNT, KEY
from tests.sim.checks import check_books, check_entries
from tests.sim.fleet import Work
from tests.sim.host import DEAD_BATTERY_MS, RATES_PPM, Host, salts
from tests.sim.image import (
    WAYS,
    States,
    after_crash,
    check_kind,
    check_prefix,
    entries_of_newest,
    start_of_newest,
    states_in_newest,
)
from tests.sim.judge import Consumption, judge

OTHER_KEY = Scope("key:other")
TURNS = 16
FAULTS: tuple[Fault, ...] = ("EIO", "ENOSPC", "short")
HOUR_MS = 3_600_000


def run(seed: int) -> Counter[str]:
    """Some lives, the last of them without a fault. Counts how they ended."""
    lives = _Lives(seed)
    for _ in range(lives.random.choice((2, 2, 3, 4))):
        lives.live(with_trouble=True)
        lives.die()
    lives.live(with_trouble=False)
    judge(lives.consumed)
    check_entries([entry for _, entry in sorted(lives.entries.items())])
    lives.tally["dispatched"] += len(lives.consumed)
    return lives.tally


class _Request:
    __slots__ = ("asked_ms", "consumption", "n", "number", "scopes", "work")

    def __init__(
        self, number: ReservationId, n: int, scopes: tuple[Scope, ...], work: Work, asked_ms: int
    ) -> None:
        self.asked_ms = asked_ms
        self.number = number
        self.n = n
        self.scopes = scopes
        self.work = work
        self.consumption: Consumption | None = None


class _Lives:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(f"lives {seed}")
        self.tally: Counter[str] = Counter()
        self.host = Host(rate_ppm=self.random.choice(RATES_PPM))
        self.disk = SimulatedDisk(seed)
        self.on_reboot: OnReboot = self.random.choice(("wall", "freeze"))
        self.settings = JournalSettings(
            grace_ms=self.random.choice((1_000, 30_000)),
            on_reboot=self.on_reboot,
            segment_bytes_max=self.random.choice((900, 3_000, 1 << 20)),
            retention=Retention(self.random.choice((0, 60_000)), self.random.choice((0, 1, 9_000))),
            new_salt=salts(self.random),
        )
        self.window_ms = self.random.choice((2_000, 20_000, 300_000))
        self.largest = self.random.choice((60, 400))
        self.base = (
            Cap(KEY, self.largest * self.random.choice((1, 3)), rolling(self.window_ms)),
            Cap(OTHER_KEY, self.largest * 2),
            Cap(ACCOUNT, self.largest * self.random.choice((3, 12))),
            *self.further_caps(),
        )
        self.caps: dict[LimitId, Cap] = {}
        self.consumed: list[Consumption] = []
        self.entries: dict[int, Entry] = {}
        self.states: list[States] = [{0: Accounts().dump()}]
        self.durable = 0
        self.requests: list[_Request] = []
        self.wall_errors: dict[int, int] = {}
        self.disk.on_operation = self.note_wall_error

    def further_caps(self) -> list[Cap]:
        caps = [
            Cap(KEY, self.largest * 6, rolling(self.window_ms * 5)),
            Cap(KEY, self.largest * 4, fixed(self.window_ms * 2)),
            Cap(ACCOUNT, self.largest * 8, calendar("day", "Europe/Berlin")),
            Cap(KEY, 3, rolling(self.window_ms), "req"),
            Cap(ACCOUNT, 30, unit="req"),
            Cap(ACCOUNT, 2, HELD, "con"),
            Cap(OTHER_KEY, self.largest, rolling(self.window_ms), shadow=True),
        ]
        return self.random.sample(caps, self.random.choice((0, 1, 2, 4)))

    # one life

    def live(self, *, with_trouble: bool) -> None:
        if with_trouble:
            self.make_trouble()
        self.configure()
        self.requests = []
        journal: Journal | None = None
        try:
            journal = self.open()
            for _ in range(TURNS):
                self.turn(journal)
        except (Crash, JournalFailed):
            assert with_trouble
        except LedgerProblem as problem:
            check_kind(problem, "unusable" if with_trouble else "no problem at all")
        if journal is None:
            self.states.append(states_in_newest(self.disk))
        else:
            self.durable = journal.durable
            check_books(journal.accounts)

    def make_trouble(self) -> None:
        choice = self.random.random()
        at = self.disk.operations + self.random.randrange(1, 10 if choice < 0.2 else 70)
        if choice < 0.6:
            self.disk.crash_at = at
        elif choice < 0.8:
            self.disk.faults = {
                at + self.random.randrange(20): self.random.choice(FAULTS)
                for _ in range(self.random.choice((1, 2)))
            }
        elif choice < 0.88:
            self.disk.room_bytes = self.random.randrange(8_000)
        elif choice < 0.92:
            self.disk.is_read_only = True

    def configure(self) -> None:
        self.caps = {cap.limit_id: cap for cap in self.base}
        choice = self.random.random()
        if choice < 0.15:
            cap = self.random.choice(self.base)
            hard_cap = cap.hard_cap * self.random.choice((1, 2, 4)) // 2
            self.caps[cap.limit_id] = msgspec.structs.replace(cap, hard_cap=hard_cap)
        elif choice < 0.25 and self.durable:
            # A cap that is new begins empty; one that comes back goes on where it would have been.
            del self.caps[self.random.choice(self.base).limit_id]

    def open(self) -> Journal:
        self.remember_entries()
        journal = Journal.recover(
            self.disk, tuple(self.caps.values()), self.host.sources(), self.settings
        )
        n, recovered = start_of_newest(self.disk)
        check_prefix(n, recovered, self.durable, *self.states)
        for number in [number for number in self.entries if number > n]:
            del self.entries[number]
        self.remember_entries()
        self.states = [states_in_newest(self.disk)]
        self.durable = journal.durable
        return journal

    def remember_entries(self) -> None:
        """Numbers that were lost are used again, so the newest segment knows best."""
        self.entries.update(entries_of_newest(self.disk)[2])

    def turn(self, journal: Journal) -> None:
        self.pass_time()
        accounts = journal.accounts
        batch: list[Entry] = []

        def happen(entries: tuple[Entry, ...]) -> None:
            for entry in entries:
                accounts.apply(entry)
                batch.append(entry)
                self.entries[journal.written + len(batch)] = entry
                self.states[0][journal.written + len(batch)] = accounts.dump()

        happen(accounts.tick(journal.clock.now_ms()))
        happen(accounts.roll(journal.clock.now_ms(), journal.clock.civil_ms()))
        for _ in range(self.random.choice((1, 1, 2, 4))):
            if self.random.random() < 0.55 or not self.requests:
                self.reserve(journal, happen)
            else:
                self.settle(journal, happen)
        waiting = [each for each in self.requests if each.consumption is None]
        try:
            if batch:
                journal.append(batch)
            if waiting or self.random.random() < 0.3:
                self.host.true_ms += self.random.choice((0, 0, 3, 50))
                journal.sync()
        finally:
            self.durable = journal.durable
        for request in waiting:
            self.dispatch(request)
        if journal.roll_is_due():
            journal.prepare_roll()()

    def reserve(self, journal: Journal, happen: Callable[[tuple[Entry, ...]], None]) -> None:
        work = Work(self.random, self.largest)
        scopes = self.random.choice(((KEY, ACCOUNT), (KEY, ACCOUNT), (OTHER_KEY, ACCOUNT), (KEY,)))
        bound = work.bound
        least = bound.prompt_tokens + bound.choices if self.random.random() < 0.2 else None
        entries, answer = journal.accounts.reserve(
            journal.clock.now_ms(),
            scopes,
            bound.total,
            least=least,
            step=bound.choices,
            request_id="req-1",
        )
        if isinstance(answer, Granted):
            work.afford(answer.tokens)
        happen(entries)
        if isinstance(answer, Granted):
            n = max(self.entries)
            self.requests.append(
                _Request(answer.reservation_id, n, scopes, work, self.host.true_ms)
            )

    def settle(self, journal: Journal, happen: Callable[[tuple[Entry, ...]], None]) -> None:
        request = self.requests.pop(self.random.randrange(len(self.requests)))
        work = request.work
        if request.consumption is None:  # the client left before the disk had it
            work.dispatched = False
            work.tokens = 0
        else:
            request.consumption.end_ms = self.host.true_ms
        work.check_charge()
        cost = charge(work.bound, work.ending, dispatched=work.dispatched)
        happen(journal.accounts.settle(journal.clock.now_ms(), request.number, cost)[0])

    def dispatch(self, request: _Request) -> None:
        assert request.n <= self.durable, "dispatched before it was durable"
        work = request.work
        caps = [cap for cap in self.caps.values() if not cap.shadow]
        consumption = Consumption(
            request.scopes, caps, self.host.true_ms, work.tokens, asked_ms=request.asked_ms
        )
        request.consumption = consumption
        if work.tokens:
            self.consumed.append(consumption)

    def pass_time(self) -> None:
        window_ms = self.window_ms
        # By a clock that runs fast and is believed, a window is over after `nearly_ms`.
        nearly_ms = window_ms - window_ms // 2000
        self.host.true_ms += self.random.choice(
            (0, 1, 20, window_ms // 5, window_ms // 2, nearly_ms, window_ms + 20)
        )
        choice = self.random.random()
        if choice < 0.04:
            by_ms = self.random.choice((10_000, self.window_ms, 50 * HOUR_MS))
            self.host.wall_error_ms += self.random.choice((-1, 1)) * by_ms
        elif choice < 0.12:
            self.host.wall_error_ms = 0

    # and its end

    def die(self) -> None:
        """End this process; its neurons go on for less than the grace (assumption A4)."""
        for request in self.requests:
            consumption = request.consumption
            if consumption is not None:
                linger_ms = self.random.randrange(self.settings.grace_ms * 99 // 100)
                consumption.end_ms = self.host.true_ms + linger_ms
                if self.random.random() < 0.5 and consumption.tokens:
                    consumption.tokens = request.work.bound.total
        way = self.random.choice(WAYS)
        self.disk = after_crash(self.disk, way, self.random.getrandbits(32))
        self.disk.on_operation = self.note_wall_error
        self.tally["points"] += 1
        self.tally[way or "kill"] += 1
        down_ms = self.random.choice((0, 10, self.window_ms // 2, self.window_ms, HOUR_MS))
        if way is None:
            self.host.true_ms += down_ms
        else:
            self.host.reboot(
                down_ms=down_ms,
                wall_error_ms=self.random.choice(self.possible_wall_errors()),
                rate_ppm=self.random.choice(RATES_PPM),
            )

    def note_wall_error(self, operation: str) -> None:
        if operation == "create":
            number = max(segment_numbers(self.disk.names()), default=0) + 1
            self.wall_errors[number] = self.host.wall_error_ms

    def possible_wall_errors(self) -> tuple[int, ...]:
        """How wrong the wall clock may be after a reboot.

        Where it is believed (assumption A3), what the newest header says about it was right or
        from a board without a battery, and it does not come back ahead of the truth.
        """
        if self.on_reboot == "freeze":
            return (0, DEAD_BATTERY_MS, -HOUR_MS, HOUR_MS, 1000 * HOUR_MS)
        numbers = segment_numbers(self.disk.names())
        if numbers and self.wall_errors[numbers[-1]] not in (0, DEAD_BATTERY_MS):
            return (DEAD_BATTERY_MS,)
        return (0, 0, DEAD_BATTERY_MS, -HOUR_MS)

"""The judge: what the journal says against what the neurons really served.

`Books.close_life` is called when a daemon has ended. It reads what is new in the journal and in the
neurons' log and raises `Violation` for everything that must never be:

- a request charged, or still reserved, for less than it was served
- more served than a cap allows: in total, or in any stretch of true time as long as its window
- more reserved and charged in the journal than a cap allows, at any admission
- a reservation closed twice, or lost: open at a crash, and no ghost in the next life
- a request that reached a neuron before the ledger had promised that its reservation is durable
"""

from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path

import msgspec

from tests.support.wild_neurons import ARRIVAL, Witnessed, read_witnessed
from tests.torture.journal_files import BrokenJournal, JournalReader, Line

NOTICE_MS = 100
"""How long after its connection was closed a neuron may still be serving on a busy machine. The
ledger closes the reservation at once, so that true time may lag behind its stamps by as much.
"""


class Violation(AssertionError):
    """A promise of the ledger is broken."""


class Rule(msgspec.Struct, frozen=True):
    """One cap of the configuration. `window_ms` None: a balance."""

    scope: str
    hard_cap: int
    window_ms: int | None = None


class Booked(msgspec.Struct):
    """What the journal says of one request, in tokens. `n`: number of the entry that reserved."""

    scopes: tuple[str, ...]
    reserved: int
    n: int
    charged: int | None = None
    why: str = ""

    @property
    def counted(self) -> int:
        """What its caps hold against it."""
        return self.reserved if self.charged is None else self.charged


class _Window:
    """Amounts of one scope by time, and the most that any stretch of a window's length holds."""

    def __init__(self, rule: Rule, length: int) -> None:
        self.rule = rule
        self._length = length
        self._amounts: deque[tuple[int, int]] = deque()
        self.sum = 0

    def add(self, at: int, amount: int) -> None:
        self._amounts.append((at, amount))
        self.sum += amount

    def since(self, moment: int) -> int:
        """The sum of what is later than that."""
        return sum(amount for at, amount in self._amounts if at > moment)

    def move_to(self, now: int) -> None:
        """Forget what is a whole window old; a balance forgets nothing."""
        if self.rule.window_ms is not None:
            while self._amounts and self._amounts[0][0] <= now - self._length:
                self.sum -= self._amounts.popleft()[1]


class Books:
    """All lives of one ledger directory, and the log of its neurons."""

    def __init__(self, ledger: Path, served_log: Path, rules: tuple[Rule, ...]) -> None:
        self.totals: Counter[str] = Counter()
        self.requests: dict[str, Booked] = {}
        self.served: Counter[str] = Counter()
        self._journal = JournalReader(ledger)
        self._log = served_log
        self._log_offset = 0
        self._open: dict[int, str] = {}
        self._used_numbers: set[int] = set()
        self._must_be_ghosts: set[int] = set()
        self._ghosts: set[int] = set()
        self._reserved: Counter[str] = Counter()
        self._charged = [_Window(rule, rule.window_ms or 0) for rule in rules]
        self._really = [_Window(rule, ((rule.window_ms or 0) - NOTICE_MS) * 1000) for rule in rules]

    # What others ask.

    @property
    def open_requests(self) -> int:
        """Reservations that no entry has closed."""
        return len(self._open)

    @property
    def ghosts(self) -> int:
        """Of those, how many belong to an earlier life."""
        return len(self._ghosts & self._open.keys())

    def counted(self, scope: str) -> int:
        """What is charged to or reserved for a scope, over all time."""
        return sum(booked.counted for booked in self.requests.values() if scope in booked.scopes)

    def served_since(self, scope: str, since_us: int) -> int:
        """Tokens really served to a scope since then, as far as the log has been read."""
        [window] = [window for window in self._really if window.rule.scope == scope]
        return window.since(since_us)

    # Reading.

    def close_life(self) -> None:
        """Read what one life of the daemon, and its neurons meanwhile, have written; and judge."""
        try:
            for entry in self._journal.new_entries():
                self._take(entry)
        except BrokenJournal as broken:
            raise Violation(str(broken)) from broken
        if self._must_be_ghosts:
            raise Violation(f"forgotten by the next life: {sorted(self._must_be_ghosts)}")
        self._must_be_ghosts = self._open.keys() - self._ghosts
        self.totals["torn tails"] = self._journal.torn_tails
        self._read_log()
        for request_id, served in self.served.items():
            booked = self.requests[request_id]
            if served > booked.counted:
                raise Violation(f"{request_id} was served {served}, and is booked as {booked}")

    def _take(self, entry: Line) -> None:
        match entry["k"]:
            case "hold":
                self._hold(entry)
            case "close":
                self._close(entry)
            case "ghost":
                number = _number(entry, "i")
                if number not in self._open:
                    raise Violation(f"reservation {number} is a ghost, and not open")
                self._ghosts.add(number)
                self._must_be_ghosts.discard(number)

    def _hold(self, entry: Line) -> None:
        number, tokens, request_id = _number(entry, "i"), _number(entry, "a"), str(entry["rid"])
        if number in self._used_numbers or request_id in self.requests:
            raise Violation(f"reservation {number} of {request_id} was made twice")
        scopes = entry["w"]
        assert isinstance(scopes, list)
        self._used_numbers.add(number)
        self._open[number] = request_id
        self.requests[request_id] = Booked(tuple(scopes), tokens, _number(entry, "n"))
        self._reserved.update(dict.fromkeys(scopes, tokens))
        self.totals["reserved tokens"] += tokens
        for window in self._charged:
            if window.rule.scope in scopes:
                window.move_to(_number(entry, "t"))
                _check(window, self._reserved[window.rule.scope], "is reserved and charged")

    def _close(self, entry: Line) -> None:
        number, tokens = _number(entry, "i"), _number(entry, "a")
        request_id = self._open.pop(number, None)
        if request_id is None:
            raise Violation(f"reservation {number} was closed, and was not open")
        booked = self.requests[request_id]
        booked.charged, booked.why = tokens, str(entry["y"])
        self._reserved.subtract(dict.fromkeys(booked.scopes, booked.reserved))
        self.totals[f"closed by {booked.why}"] += 1
        self.totals["charged tokens"] += tokens
        for window in self._charged:
            if window.rule.scope in booked.scopes:
                window.add(_number(entry, "t"), tokens)

    def _read_log(self) -> None:
        with self._log.open("rb") as log:
            log.seek(self._log_offset)
            data = log.read()
        data = data[: data.rfind(b"\n") + 1]
        self._log_offset += len(data)
        for seen in read_witnessed(data):
            booked = self.requests.get(seen.request_id)
            if booked is None:
                raise Violation(f"{seen.request_id} reached a neuron, and is not in the journal")
            if seen.kind == ARRIVAL:
                self._arrived(seen, booked)
            else:
                self._served(seen, booked)

    def _arrived(self, seen: Witnessed, booked: Booked) -> None:
        self.totals["dispatches"] += 1
        if seen.amount < booked.n:
            what = f"reserved by entry {booked.n}, only {seen.amount} was durable"
            raise Violation(f"{seen.request_id} reached a neuron too soon: {what}")

    def _served(self, seen: Witnessed, booked: Booked) -> None:
        self.totals["served tokens"] += seen.amount
        self.served[seen.request_id] += seen.amount
        for window in self._really:
            if window.rule.scope in booked.scopes:
                window.add(seen.at_us, seen.amount)
                window.move_to(seen.at_us)
                _check(window, 0, "was really served")


def _check(window: _Window, besides: int, what: str) -> None:
    rule = window.rule
    if window.sum + besides > rule.hard_cap:
        length = "ever" if rule.window_ms is None else f"within {rule.window_ms} ms"
        found = f"{window.sum + besides} {what} {length}"
        raise Violation(f"{rule.scope}: {found}, its cap is {rule.hard_cap}")


def _number(entry: Mapping[str, object], name: str) -> int:
    number = entry[name]
    assert isinstance(number, int)
    return number

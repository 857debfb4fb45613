"""Real ledgers in real directories, for the tests of `cortexd ledger`."""

from collections.abc import Sequence
from pathlib import Path

from cortexd.ledger.cap_windows import HELD, calendar, rolling
from cortexd.ledger.charging import Charge
from cortexd.ledger.clock import system_time
from cortexd.ledger.disk import DirectoryDisk
from cortexd.ledger.entries import Cap, Granted, ReservationId, account_scope, key_scope
from cortexd.ledger.journal import Journal
from tests.ledger.workbench import commit, settings

KEY = key_scope("ci bot")
OTHER_KEY = key_scope("nightly")
ACCOUNT = account_scope("acme")
CAPS = (
    Cap(ACCOUNT, 100_000),
    Cap(ACCOUNT, 90_000, calendar("day", "Europe/Berlin")),
    Cap(KEY, 5_000, rolling(3_600_000)),
    Cap(KEY, 60, rolling(60_000), "req"),
    Cap(KEY, 4, HELD, "con"),
    Cap(OTHER_KEY, 7, shadow=True),
)


class Daemon:
    """One life of a daemon's ledger, without the daemon."""

    def __init__(self, directory: Path, caps: Sequence[Cap] = CAPS) -> None:
        self._disk = DirectoryDisk.open(str(directory))
        self.journal = Journal.recover(self._disk, caps, system_time(), settings(grace_ms=60_000))

    def reserve(self, request_id: str, tokens: int = 100, key: str = KEY) -> ReservationId:
        """Reserve on the account and a key."""
        scopes = (ACCOUNT, KEY if key == KEY else OTHER_KEY)
        now_ms = self.journal.clock.now_ms()
        entries, answer = self.journal.accounts.reserve(
            now_ms, scopes, tokens, request_id=request_id
        )
        assert isinstance(answer, Granted)
        commit(self.journal, entries)
        return answer.reservation_id

    def settle(self, reservation_id: ReservationId, prompt: int = 10, output: int = 20) -> None:
        """Charge what was used."""
        charge = Charge(prompt + output, prompt, output, "settle", 0)
        now_ms = self.journal.clock.now_ms()
        commit(self.journal, self.journal.accounts.settle(now_ms, reservation_id, charge)[0])

    def roll(self) -> None:
        """Begin a new segment."""
        self.journal.prepare_roll()()

    def end(self) -> None:
        """Make it durable, and give the directory back."""
        self.journal.sync()
        self.journal.close()


def ledger_with_a_past(directory: Path) -> None:
    """Two lives, three segments; one ghost of the first life, one open reservation of the second.

    Requests, in order: a, b, c (nightly's), lost (left behind by the first life), d, open.
    """
    daemon = Daemon(directory)
    daemon.settle(daemon.reserve("a"))
    first = daemon.reserve("b")
    daemon.roll()
    daemon.settle(first, 1, 2)
    daemon.settle(daemon.reserve("c", key=OTHER_KEY), 3, 4)
    daemon.reserve("lost", 500)
    daemon.end()
    daemon = Daemon(directory)
    daemon.settle(daemon.reserve("d"), 5, 6)
    daemon.journal.sync()
    daemon.reserve("open", 77)
    daemon.end()


def damage(directory: Path, segment: int = 3) -> tuple[Path, int, int]:
    """Flip a bit in the first hold of a segment; the file, the line and its offset."""
    file = directory / f"seg-{segment:08d}.jsonl"
    data = bytearray(file.read_bytes())
    at = data.index(b'"k":"hold"')
    data[at] ^= 1
    file.write_bytes(data)
    return file, data[:at].count(b"\n") + 1, data.rindex(b"\n", 0, at) + 1

"""kill -9 of the real daemon under load, again and again: no served token is ever forgotten.

The neuron is a process of its own that outlives the daemon and writes down, before it sends them,
the tokens that it serves for each key: the truth that the ledger is held against.
"""

import contextlib
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import pytest
import trio

from cortexd.demo.counters import read_served_log
from tests.support.daemon_process import DaemonProcess, serving
from tests.support.traffic import Traffic

pytestmark = pytest.mark.slow

SEED = 20_261_124
KILLS = 50
SECONDS_MAX = 240
GENEROUS_ROUNDS = 35
GENEROUS_TOKENS = 10_000_000
LAST_TOKENS = 6_000
ROLLING_TOKENS, ROLLING_SECONDS = 2_500, 3
GRACE_SECONDS = 1
KEYS = ("sk-balance", "sk-rolling")
"""Each one's key id is its account's, without the `sk-`."""


@contextlib.asynccontextmanager
async def neuron_process(served_log: Path, *switches: str) -> AsyncIterator[str]:
    """A simulated neuron as a process of its own; its URL."""
    command = [sys.executable, "-m", "tests.support.neuron_process"]
    command += ["--served-log", str(served_log)]
    command += [word for switch in switches for word in ("--switch", switch)]
    async with trio.open_nursery() as nursery:
        run = partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
        process: trio.Process = await nursery.start(run)
        assert process.stdout is not None
        with trio.fail_after(20):
            line = await process.stdout.receive_some()
        yield line.decode().split()[2]
        process.kill()


class Books:
    """The ledger's word against the neuron's, over all lives of the daemon."""

    def __init__(self, directory: Path) -> None:
        self.served_log = directory / "served"
        self.served_log.touch()
        self.balance_cap = GENEROUS_TOKENS
        self._served_before: list[tuple[float, int]] = []

    def served(self, key_id: str) -> int:
        """All tokens that the neuron ever served for a key."""
        counted = read_served_log(str(self.served_log)).get(key_id)
        return 0 if counted is None else counted.total

    async def check(self, daemon: DaemonProcess) -> Mapping[str, int]:
        """Hold both against each other, and the caps; returns the balance's spent and reserved."""
        # The neuron's word first: what the ledger says afterwards covers at least that.
        now, served = (
            trio.current_time(),
            {name: self.served(name) for name in ("balance", "rolling")},
        )
        balance, rolling = [await daemon.budget(key) for key in KEYS]
        counted = int(str(balance["spent"])) + int(str(balance["reserved"]))
        assert served["balance"] <= counted <= self.balance_cap
        counted = int(str(rolling["spent"])) + int(str(rolling["reserved"]))
        assert counted <= ROLLING_TOKENS
        self._served_before.append((now, served["rolling"]))
        for then, served_then in self._served_before:
            if now - then <= ROLLING_SECONDS:
                assert served["rolling"] - served_then <= ROLLING_TOKENS
        return {name: int(str(balance[name])) for name in ("spent", "reserved")}

    def keys(self) -> Sequence[Mapping[str, object]]:
        """Both keys as the configuration has them."""
        rolling = {"kind": "rolling", "seconds": ROLLING_SECONDS}
        return [
            {"key": KEYS[0], "account_id": "balance", "hard_cap": self.balance_cap},
            {
                "key": KEYS[1],
                "account_id": "rolling",
                "hard_cap": ROLLING_TOKENS,
                "window": rolling,
            },
        ]


def ghosts_in(log: Path) -> list[int]:
    """How many open reservations each life of the daemon found, in order."""
    return [int(count) for count in re.findall(r"ledger_opened .* ghosts=(\d+)", log.read_text())]


async def live_and_die(daemon: DaemonProcess, traffic: Traffic, moment_seconds: float) -> None:
    """Let the clients in, and kill the daemon at that moment."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: traffic.run(KEYS, clients_per_key=4))
        with trio.move_on_after(moment_seconds):
            await trio.sleep_forever()
        await daemon.kill()


async def last_life(daemon: DaemonProcess, books: Books) -> None:
    """Wait until what the last kill left open is charged, and hold the books together once more."""
    with trio.fail_after(30):
        while (await books.check(daemon))["reserved"]:
            pass


async def test_after_fifty_kills_nothing_that_was_served_is_unpaid_and_no_cap_is_passed(
    tmp_path: Path,
) -> None:
    choices = random.Random(SEED)
    sys.stdout.write(f"seed {SEED}\n")
    books = Books(tmp_path)
    ledger = {"directory": str(tmp_path / "ledger"), "grace_seconds": GRACE_SECONDS}
    with trio.fail_after(SECONDS_MAX):
        async with neuron_process(books.served_log, "token_seconds=0.002") as url:
            for life in range(KILLS):
                async with serving(
                    tmp_path, {"sim": url}, keys=books.keys(), ledger=ledger
                ) as daemon:
                    standing = await books.check(daemon)
                    moment_seconds = choices.uniform(0.02, 0.3)
                    await live_and_die(daemon, Traffic(daemon.gateway, life), moment_seconds)
                if life == GENEROUS_ROUNDS:
                    books.balance_cap = sum(standing.values()) + LAST_TOKENS
            async with serving(tmp_path, {"sim": url}, keys=books.keys(), ledger=ledger) as daemon:
                await last_life(daemon, books)
    assert len(ghosts_in(tmp_path / "daemon.log")) == KILLS + 1
    assert sum(ghosts_in(tmp_path / "daemon.log")) > KILLS

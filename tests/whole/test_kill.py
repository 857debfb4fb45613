"""kill -9 of the real daemon under load, again and again: no served token is ever forgotten.

The neuron is a process of its own that outlives the daemon and writes down, before it sends them,
the tokens that it serves for each request: the truth that the ledger is held against, in sum after
every kill and request by request at the end, where nothing that was charged too much can make up
for what was forgotten.
"""

import contextlib
import random
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from functools import partial
from pathlib import Path

import msgspec
import pytest
import trio

from cortexd.demo.counters import read_served_log
from tests.support.daemon_process import DaemonProcess, serving
from tests.support.journal_audit import booked_in, most_counted
from tests.support.traffic import Traffic

pytestmark = pytest.mark.slow

SEED = 20_261_124
GENEROUS_KILLS, TIGHT_KILLS = 35, 15
SECONDS_MAX = 240
GENEROUS_TOKENS = 10_000_000
LAST_TOKENS = 3_000
ROLLING_TOKENS, ROLLING_SECONDS = 2_500, 3
REQUEST_TOKENS_MAX = 250
KEYS = ("sk-balance", "sk-rolling")


@contextlib.asynccontextmanager
async def neuron_process(served_log: Path, *switches: str) -> AsyncIterator[str]:
    """A simulated neuron as a process of its own; its URL."""
    command = [sys.executable, "-m", "tests.support.neuron_process"]
    command += ["--served-log", str(served_log), "--served-by-request"]
    command += [word for switch in switches for word in ("--switch", switch)]
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
        )
        with trio.fail_after(20):
            line: bytes = await process.stdout.receive_some()
        yield line.decode().split()[2]
        process.kill()


class Standing(msgspec.Struct, frozen=True):
    """What `GET /v1/budget` says of a key, in tokens."""

    spent: int
    reserved: int
    hard_cap: int

    @property
    def counted(self) -> int:
        """What the cap holds against the key."""
        return self.spent + self.reserved


class Books:
    """The ledger's word against the neuron's, over all lives of the daemon."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.served_log = directory / "served"
        self.served_log.touch()
        self.balance_tokens = GENEROUS_TOKENS
        self._rolling_served: list[tuple[float, int]] = []
        self._reserved = 0

    @contextlib.asynccontextmanager
    async def life(
        self, neuron_url: str, *, ghost_seconds: float = 1
    ) -> AsyncIterator[DaemonProcess]:
        """One life of the daemon, checked at its start; killed when left, if it still lives."""
        rolling = {"kind": "rolling", "seconds": ROLLING_SECONDS}
        keys = [
            {"key": KEYS[0], "account_id": "balance", "hard_cap": self.balance_tokens},
            {
                "key": KEYS[1],
                "account_id": "rolling",
                "hard_cap": ROLLING_TOKENS,
                "window": rolling,
            },
        ]
        ledger = {"directory": str(self.directory / "ledger"), "grace_seconds": ghost_seconds}
        neurons = {"sim": neuron_url}
        async with serving(self.directory, neurons, keys=keys, ledger=ledger) as daemon:
            await self.check(daemon)
            yield daemon

    def served(self, key_id: str) -> int:
        """All tokens that the neuron ever served for a key."""
        return sum(tokens for name, tokens in self.requests().items() if name[0] == key_id)

    def requests(self) -> Mapping[tuple[str, str], int]:
        """Key id and request id -> the tokens that the neuron served."""
        log = read_served_log(str(self.served_log))
        return {(name.split("/")[0], name.split("/")[1]): log[name].total for name in log}

    async def check(self, daemon: DaemonProcess) -> Standing:
        """Hold both against each other, and the caps; how the balance stands."""
        # The neuron's word first: what the ledger says after that has to cover it.
        now, rolling_served = trio.current_time(), self.served("rolling")
        balance_served = self.served("balance")
        balance, rolling = [msgspec.convert(await daemon.budget(key), Standing) for key in KEYS]
        assert balance_served <= balance.counted <= balance.hard_cap
        assert rolling.counted <= rolling.hard_cap
        for then, served_then in self._rolling_served:
            if now - then <= ROLLING_SECONDS:
                assert rolling_served - served_then <= rolling.hard_cap
        self._rolling_served.append((now, rolling_served))
        self._reserved = balance.reserved + rolling.reserved
        return balance

    async def check_without_ghosts(self, daemon: DaemonProcess) -> Standing:
        """`check` once everything that was reserved is charged."""
        with trio.fail_after(20):
            while True:
                balance = await self.check(daemon)
                if not self._reserved:
                    return balance

    def check_every_request(self) -> None:
        """Hold the journal's files against the neuron's word, once nothing is open any more."""
        ledger = self.directory / "ledger"
        booked = booked_in(ledger)
        assert {way.why for way in booked.values()} >= {"settle", "abort", "crash"}
        for (_, request_id), served in self.requests().items():
            charged = booked[request_id].charged
            assert charged is not None, f"{request_id} is still open"
            assert served <= charged, f"{request_id} was served more than it was charged"
        most = most_counted(ledger, "key:rolling", ROLLING_SECONDS * 1000)
        assert ROLLING_TOKENS / 2 < most <= ROLLING_TOKENS


def lives_in(log: Path) -> list[int]:
    """How many open reservations each life of the daemon found, in order."""
    return [int(count) for count in re.findall(r"ledger_opened .* ghosts=(\d+)", log.read_text())]


async def load_and_kill(daemon: DaemonProcess, seed: int, moment_seconds: float) -> Traffic:
    """Let the clients in and kill the daemon at that moment; they end when they notice."""
    traffic = Traffic(daemon.gateway, seed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(traffic.run, KEYS, clients_per_key=4))
        with trio.move_on_after(moment_seconds):
            await trio.sleep_forever()
        await daemon.kill()
    return traffic


async def test_after_fifty_kills_all_that_was_served_is_paid_for_and_no_cap_was_passed(
    tmp_path: Path,
) -> None:
    sys.stdout.write(f"seed {SEED}\n")
    choices = random.Random(SEED)
    books = Books(tmp_path)
    async with neuron_process(books.served_log, "token_seconds=0.002") as url:
        with trio.fail_after(SECONDS_MAX):
            for seed in range(GENEROUS_KILLS + TIGHT_KILLS):
                if seed == GENEROUS_KILLS:  # from here on the balance is nearly used up
                    async with books.life(url) as daemon:
                        books.balance_tokens = (await books.check(daemon)).counted + LAST_TOKENS
                async with books.life(url) as daemon:
                    await load_and_kill(daemon, seed, choices.uniform(0.02, 0.3))
            async with books.life(url) as daemon:  # a kill may have taken the last of the balance
                checked = await books.check_without_ghosts(daemon)
                books.balance_tokens = checked.counted + LAST_TOKENS
            async with books.life(url) as daemon:
                await use_up(daemon)
                balance = await books.check_without_ghosts(daemon)
                assert await daemon.stop() == 0
    books.check_every_request()
    assert balance.hard_cap - balance.spent < REQUEST_TOKENS_MAX, "the cap was not used up"
    ghosts = lives_in(tmp_path / "daemon.log")
    assert len(ghosts) == GENEROUS_KILLS + TIGHT_KILLS + 3
    assert sum(count > 0 for count in ghosts) > GENEROUS_KILLS / 2, "too few kills met a request"


async def use_up(daemon: DaemonProcess) -> None:
    """Load until both caps have refused; then stop the daemon's clients, and leave it running."""
    traffic = Traffic(daemon.gateway, seed=-1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(traffic.run, KEYS, clients_per_key=4))
        await traffic.wait_until_refused("insufficient_quota", "rate_limit_exceeded")
        nursery.cancel_scope.cancel()
    assert any(answer.status == 200 for answer in traffic.answers)


async def test_a_daemon_that_is_asked_to_stop_under_load_cuts_nobody_off_and_leaves_no_ghost(
    tmp_path: Path,
) -> None:
    books = Books(tmp_path)
    async with neuron_process(books.served_log, "token_seconds=0.01") as url:
        with trio.fail_after(60):
            async with books.life(url) as daemon:
                traffic = Traffic(daemon.gateway, SEED)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(partial(traffic.run, KEYS, clients_per_key=8))
                    await traffic.wait_for_answers(20)
                    answered = len(traffic.answers)
                    assert await daemon.stop() == 0
            async with books.life(url) as daemon:
                assert (await books.check(daemon)).reserved == 0
    assert lives_in(tmp_path / "daemon.log") == [0, 0]
    assert [answer for answer in traffic.answers if answer.was_cut_off] == []
    finished = [answer.status for answer in traffic.answers[answered:] if answer.is_whole]
    assert finished.count(200) > 3, "nobody was being served when it was asked to stop"

"""One world: a ledger directory, its neurons, and some lives of the daemon, one round each.

Everything that can be chosen is chosen by the world's seed and the number of the round. The ledger
and the neurons go on from round to round, so that each life begins with what the last one left.
"""

import contextlib
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import trio

from tests.support.daemon_process import DaemonProcess, serving
from tests.support.wild_clients import WildClients
from tests.support.wild_neurons import boot_time_us
from tests.torture.books import Books, Rule, Violation
from tests.torture.ends import (
    ENDS,
    NEED_A_DISK,
    Scene,
    ask,
    budget_bytes,
    disk_problem,
    small_disk,
)

ROUNDS_PER_WORLD = 20
ROUND_SECONDS_MAX = 90
WINDOW_SECONDS = 3
CLIENTS = 16
CLIENTS_END_WITHIN_SECONDS = 5
KEYS = ("sk-balance", "sk-rolling", "sk-shared-1", "sk-shared-2", "sk-free")
_NEURONS = 3


class Failed(Exception):
    """A round that broke a promise. The message says how to see it again."""


class World(msgspec.Struct, frozen=True):
    """What the seed made of a world: which ends it knows, and its caps, in tokens."""

    seed: int
    ends: tuple[str, ...]
    balance: int
    rolling: int
    shared: int
    shared_rolls: bool

    @classmethod
    def of(cls, seed: int, ends: Sequence[str]) -> "World":
        """The world of a seed, in which rounds end in one of `ends`."""
        choices = random.Random(f"world.{seed}")
        possible = tuple(end for end in ends if end not in NEED_A_DISK or disk_problem() is None)
        return cls(
            seed,
            possible,
            balance=choices.choice((5_000, 40_000, 200_000)),
            rolling=choices.choice((1_500, 4_000)),
            shared=choices.choice((2_500, 20_000)),
            shared_rolls=choices.random() < 0.5,
        )

    @property
    def rules(self) -> tuple[Rule, ...]:
        """Its caps as the judge knows them."""
        window_ms = WINDOW_SECONDS * 1000
        return (
            Rule("key:balance", self.balance),
            Rule("key:rolling", self.rolling, window_ms),
            Rule("acct:shared", self.shared, window_ms if self.shared_rolls else None),
        )

    @property
    def entitlements(self) -> dict[str, object]:
        """Its caps as the configuration has them."""
        rolling = {"kind": "rolling", "seconds": WINDOW_SECONDS}
        shared: dict[str, object] = {"account_id": "shared", "hard_cap": self.shared}
        if self.shared_rolls:
            shared["window"] = rolling
        keys: list[dict[str, object]] = [
            {"key": KEYS[0], "account_id": "balance", "hard_cap": self.balance},
            {
                "key": KEYS[1],
                "account_id": "rolling",
                "hard_cap": self.rolling,
                "window": rolling,
            },
            {"key": KEYS[2], "account_id": "shared", "key_id": "shared-1"},
            {"key": KEYS[3], "account_id": "shared", "key_id": "shared-2"},
            {"key": KEYS[4], "account_id": "free"},
        ]
        return {"require_auth": True, "accounts": [shared], "keys": keys}


class _Neurons:
    """The process of the simulated neurons, which can be killed and started again."""

    def __init__(self, directory: Path, ledger: Path, seed: int) -> None:
        self.log = directory / "served"
        self.log.touch()
        self._hint = ledger / "durable.hint"
        self._seed = seed
        self._ports = ["0"] * _NEURONS
        self._process: trio.Process | None = None
        self.urls: list[str] = []

    async def start(self) -> None:
        command = [sys.executable, "-m", "tests.support.wild_neurons", "--seed", str(self._seed)]
        command += ["--log", str(self.log), "--hint", str(self._hint)]
        command += ["--ports", ",".join(self._ports)]
        self._process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        with trio.fail_after(20):
            line = bytes(await self._process.stdout.receive_some()).decode()
        self.urls = line.split()[1:]
        self._ports = [url.rpartition(":")[2] for url in self.urls]

    async def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            assert self._process.stdout is not None
            await self._process.stdout.aclose()


async def run_world(world: World, rounds: int) -> Counter[str]:
    """So many rounds, and the books closed at the end. Raises `Failed`."""
    with tempfile.TemporaryDirectory(prefix="cortexd-torture-") as name:
        directory = Path(name)
        disk = directory / "disk"
        needs_disk = bool(NEED_A_DISK & set(world.ends))
        disk.mkdir()
        async with small_disk(disk) if needs_disk else contextlib.nullcontext():
            ledger = (disk if needs_disk else directory) / "ledger"
            neurons = _Neurons(directory, ledger, world.seed)
            await neurons.start()
            try:
                return await _Rounds(world, directory, ledger, neurons).run(rounds)
            finally:
                with trio.CancelScope(shield=True):  # a killed process ends at once
                    await neurons.kill()


class _Rounds:
    def __init__(self, world: World, directory: Path, ledger: Path, neurons: _Neurons) -> None:
        self.world = world
        self.directory = directory
        self.ledger = ledger
        self.neurons = neurons
        self.books = Books(ledger, neurons.log, world.rules)
        self.tally = self.books.totals

    async def run(self, rounds: int) -> Counter[str]:
        for number in range(rounds):
            try:
                with trio.fail_after(ROUND_SECONDS_MAX):
                    await self._round(number)
                    if number == rounds - 1:
                        await self._last_life()
            except Exception as fault:
                raise Failed(self._how_to_see_it_again(number, fault)) from fault
            self.tally["rounds"] += 1
        return self.tally

    async def _round(self, number: int) -> None:
        choices = random.Random(f"{self.world.seed}.{number}")
        end = choices.choice(self.world.ends)
        async with self._life(choices.uniform(0.2, 1)) as daemon:
            await self._check_budgets(daemon)
            clients = WildClients(daemon.gateway, f"{self.world.seed}.{number}")
            scene = Scene(
                daemon,
                configuration=self.directory / "cortexd.yaml",
                disk=self.ledger.parent,
                number=number,
            )
            asking = trio.CancelScope()

            async def let_them_ask() -> None:
                with asking:
                    await clients.run(KEYS, clients=CLIENTS)

            async with trio.open_nursery() as nursery:
                nursery.start_soon(let_them_ask)
                if choices.random() < 0.1:
                    nursery.start_soon(self._kill_neurons, choices.uniform(0.02, 0.3))
                await _wait(choices.uniform(0.03, 0.5))
                await ENDS[end](scene)
                # They end by themselves, but for one that was connected to its own port by chance.
                asking.deadline = trio.current_time() + CLIENTS_END_WITHIN_SECONDS
        self.books.close_life()
        self._check_end(end, scene, clients)
        self.tally[f"ended by {end}"] += 1

    @contextlib.asynccontextmanager
    async def _life(self, ghost_seconds: float) -> AsyncIterator[DaemonProcess]:
        neurons = {
            f"n{number}": {"endpoint": url, "kind": "openai" if number == 2 else "neuron"}
            for number, url in enumerate(self.neurons.urls)
        }
        async with serving(
            self.directory,
            neurons,
            entitlements=self.world.entitlements,
            ledger={"directory": str(self.ledger), "grace_seconds": ghost_seconds},
            polling={"interval_seconds": 0.3, "timeout_seconds": 1},
            gateway={
                "grace_seconds": 0.5,
                "send_stall_seconds": 0.5,
                "connect_seconds": 1,
                "first_byte_seconds": 1,
                "between_bytes_seconds": 0.5,
            },
        ) as daemon:
            yield daemon

    async def _kill_neurons(self, after_seconds: float) -> None:
        await _wait(after_seconds)
        await self.neurons.kill()
        await self.neurons.start()
        self.tally["neurons killed"] += 1

    async def _check_budgets(self, daemon: DaemonProcess) -> None:
        """What `GET /v1/budget` says of a new life must be what the files of the last one say."""
        books = self.books
        for key in KEYS:
            key_id = key.removeprefix("sk-")
            status, body = await ask(daemon.gateway, budget_bytes(key))
            _expect(status == 200, f"GET /v1/budget answers {status}")
            budget = json.loads(body)
            counted = budget["spent"] + budget["reserved"]
            if key_id == "rolling":
                since = boot_time_us() - WINDOW_SECONDS * 1_000_000
                least = books.served_since("key:rolling", since)
                _expect(least <= counted <= self.world.rolling, f"rolling: {budget}, not {least}")
            else:
                expected = books.counted(f"key:{key_id}")
                _expect(counted == expected, f"{key_id}: {budget}, not {expected}")
        self.tally["budgets compared"] += len(KEYS)

    def _check_end(self, end: str, scene: Scene, clients: WildClients) -> None:
        books, tally = self.books, self.tally
        tally["requests"] += clients.asked
        tally.update(scene.notes)
        for habit, count in clients.habits.items():
            tally[f"clients: {habit}"] += count
        for request_id, answer in clients.answers.items():
            if answer.is_whole:
                tally[f"answered {answer.status}"] += 1
                if answer.status == 200:
                    _expect(request_id in books.requests, f"{request_id} was served unreserved")
        own = books.open_requests - books.ghosts
        if end == "term":
            _expect(own == 0, f"{own} reservations were left open by SIGTERM")
        tally["left open"] += own

    async def _last_life(self) -> None:
        """A life without load: every ghost is charged, and the books are closed."""
        async with self._life(0.1) as daemon:
            await self._check_budgets(daemon)
            with trio.fail_after(20):
                for key in KEYS:
                    while True:
                        _, body = await ask(daemon.gateway, budget_bytes(key))
                        if not json.loads(body)["reserved"]:
                            break
            _expect(await daemon.stop() == 0, "it does not stop in peace")
        self.books.close_life()
        _expect(self.books.open_requests == 0, f"{self.books.open_requests} are open for ever")

    def _how_to_see_it_again(self, number: int, fault: Exception) -> str:
        log = self.directory / "daemon.log"
        last = log.read_text().splitlines()[-5:] if log.exists() else []
        ends = ",".join(self.world.ends)
        return "\n".join(
            [
                f"seed {self.world.seed}, round {number}: {_told(fault)}",
                *(f"    {line[:300]}" for line in last),
                f"  again: python -m tests.torture --seed {self.world.seed} "
                f"--rounds {number + 1} --ends {ends}",
            ]
        )


def _told(fault: BaseException) -> str:
    """All that is wrong, without the groups around it."""
    if isinstance(fault, BaseExceptionGroup):
        return "; ".join(_told(inner) for inner in fault.exceptions)
    return f"{type(fault).__name__}: {fault}"


async def _wait(seconds: float) -> None:
    """Let the clients go on for so long."""
    with trio.move_on_after(seconds):
        await trio.sleep_forever()


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise Violation(what)

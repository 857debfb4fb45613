"""An independent meter: a storm of requests through cortexd, and what the engines counted of it.

    python -m tests.engines.meter --requests 2000

Real llama-servers, a router whose models leave and come back, and a server for embeddings are
killed, ended, stopped and unloaded in mid-stream, while clients of every kind ask for more than two
caps allow: one of a balance, one of a rolling window. Then three numbers are compared: what the
engines say that they did, what the ledger says that it cost, and the cap. The engines share no code
with cortexd. Where one died, its last tokens may be missing (see mortal.py).
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from pathlib import Path

import msgspec
import trio

from tests.engines.metered import Spending
from tests.engines.mortal_fleet import SPOKEN, MortalFleet, mortal_fleet
from tests.engines.real_engine import ArchiveUnreachable, fetched_engine, write_models
from tests.engines.storm import LEFT, REFUSED, Ask, Storm, drawn
from tests.support.daemon_process import chat
from tests.support.journal_audit import entries_in, most_counted

LAST_TOKENS = 20
LATE_SECONDS = 2
"""So late may an engine count what it did: when it notices that a client has left."""

COMPARED_EVERY = 10

Fault = Callable[[str], Awaitable[None]]


class Plan(msgspec.Struct, frozen=True):
    """How much is asked, of which caps, and by how many clients at a time."""

    requests: int
    hard_cap: int
    rolling_cap: int
    window_seconds: int
    waves: int
    at_once: int
    seed: int = 1

    @property
    def rolling_requests(self) -> int:
        """A third of all."""
        return self.requests // 3


SMALL = Plan(
    requests=300, hard_cap=9_000, rolling_cap=2_500, window_seconds=5, waves=2, at_once=100
)


class Row(msgspec.Struct, frozen=True):
    """One key in the end. `most`: the ledger's and the engines' most in any window of it."""

    key: str
    requests: int
    outcomes: dict[str, int]
    ledger: int
    metered: int
    cap: int
    most: tuple[int, int] | None = None

    @property
    def problems(self) -> Sequence[str]:
        """What must not be."""
        charged, worked = self.most or (self.ledger, self.metered)
        wrong = {
            f"{self.metered} were metered, and {self.ledger} charged": self.metered > self.ledger,
            f"{charged} were charged of {self.cap}": charged > self.cap,
            f"{worked} were metered, and the cap is {self.cap}": worked > self.cap,
            "nobody left": not self.outcomes.get(LEFT),
            "the cap was never reached": not self.outcomes.get(REFUSED),
        }
        return [f"{self.key}: {problem}" for problem, is_so in wrong.items() if is_so]


class Found(msgspec.Struct, frozen=True):
    """What a run came to. `unread_max`: tokens that engines may have made unseen as they died."""

    rows: Sequence[Row]
    unread_max: int
    overruns: int

    @property
    def problems(self) -> Sequence[str]:
        """Of all rows."""
        return [problem for row in self.rows for problem in row.problems]


class Key:
    """One key in its storm, and what the engines do for it: nobody else asks them meanwhile."""

    def __init__(self, fleet: MortalFleet, name: str, *, before: int) -> None:
        """`before`: what the engines have counted already."""
        self.fleet = fleet
        self.name = name
        self.storm = Storm(fleet.daemon.gateway, f"sk-{name}")
        self.samples: list[tuple[float, int]] = []
        self._before = before

    async def metered(self) -> int:
        """What the engines have done for it so far."""
        return await self.fleet.counted() - self._before

    async def metered_at_rest(self) -> int:
        """The same, once its storm is over and settled."""
        metered = await self.fleet.counted_when_idle() - self._before
        await self.fleet.daemon.settled_budget(f"sk-{self.name}")
        return metered

    async def spending(self) -> Spending:
        """The ledger's word, now."""
        return msgspec.convert(await self.fleet.daemon.budget(f"sk-{self.name}"), Spending)

    async def blow(
        self, asks: Sequence[Ask], faults: Sequence[Fault], *, at_once: int, window: bool
    ) -> None:
        """All requests, and the faults one after the other while they come."""
        began = self.storm.outcomes.total()
        async with trio.open_nursery() as nursery:

            async def strike() -> None:
                for number, fault in enumerate(faults):
                    await self.storm.wait_for(began + number * len(asks) // (2 * len(faults)))
                    await fault(f"sk-{self.name}")

            async def compare() -> None:
                for ended in range(began, began + len(asks), COMPARED_EVERY):
                    await self.storm.wait_for(ended)
                    await self._compare(window=window)

            nursery.start_soon(strike, name="faults")
            nursery.start_soon(compare, name="comparing")
            nursery.start_soon(lambda: self.storm.run(asks, at_once=at_once), name="storm")

    async def _compare(self, *, window: bool) -> None:
        """The engines are asked first: what they count later was reserved before."""
        began = trio.current_time()
        metered = await self.metered()
        self.samples.append((began, metered))
        spending = await self.spending()
        counted = spending.spent + spending.reserved
        assert counted <= spending.hard_cap
        assert window or metered <= counted, f"{metered} metered, {counted} counted"

    async def asks_for_more(self) -> None:
        """Small requests, until not even one of those fits."""
        async with self.fleet.daemon.client(f"sk-{self.name}") as client:
            body = chat(model="stops", max_tokens=LAST_TOKENS)
            while (await client.post("/v1/chat/completions", json=body)).status_code == 200:
                pass

    async def has_room(self) -> None:
        """Wait until its window has let half of its cap go."""
        spending = await self.spending()
        while spending.spent + spending.reserved > spending.hard_cap // 2:
            spending = await self.spending()


async def run(plan: Plan, program: Path, models: Path, directory: Path) -> Found:
    """Both storms, one after the other, and what the books say when the daemon has ended."""
    window = {"kind": "rolling", "seconds": plan.window_seconds}
    keys = [
        _key("balance", plan.hard_cap),
        {**_key("rolling", plan.rolling_cap), "window": window},
    ]
    asks = drawn(random.Random(plan.seed), SPOKEN)
    async with mortal_fleet(program, models, directory, keys=keys) as fleet:
        balance = Key(fleet, "balance", before=0)
        faults = [fleet.stopped, fleet.killed, fleet.unloaded, fleet.ended, fleet.router_killed]
        first = list(islice(asks, plan.requests - plan.rolling_requests))
        await balance.blow(first, faults, at_once=plan.at_once, window=False)
        await balance.asks_for_more()
        of_balance = await balance.metered_at_rest()
        rolling = Key(fleet, "rolling", before=of_balance)
        for _ in range(plan.waves):
            await rolling.has_room()
            wave = list(islice(asks, plan.rolling_requests // plan.waves))
            faults = [fleet.killed, fleet.router_killed]
            await rolling.blow(wave, faults, at_once=plan.at_once, window=True)
        of_rolling = await rolling.metered_at_rest()
        assert await fleet.daemon.stop() == 0
        log = fleet.daemon.log.read_text()
        ledger = directory / "ledger"
        most = most_counted(ledger, "key:rolling", plan.window_seconds * 1000)
        worked = most_within(rolling.samples, plan.window_seconds - LATE_SECONDS)
        return Found(
            [
                _row(balance, ledger, of_balance, plan.hard_cap),
                _row(rolling, ledger, of_rolling, plan.rolling_cap, (most, worked)),
            ],
            unread_max=fleet.unread_max,
            overruns=log.count("event=overrun"),
        )


def _key(name: str, hard_cap: int) -> dict[str, object]:
    return {"key": f"sk-{name}", "account_id": name, "key_id": name, "hard_cap": hard_cap}


def _row(
    key: Key, ledger: Path, metered: int, cap: int, most: tuple[int, int] | None = None
) -> Row:
    outcomes = key.storm.outcomes
    return Row(
        key.name,
        requests=outcomes.total(),
        outcomes=dict(outcomes),
        ledger=charged_in(ledger, f"key:{key.name}"),
        metered=metered,
        cap=cap,
        most=most,
    )


def charged_in(ledger: Path, scope: str) -> int:
    """All that the journal ever charged a scope."""
    charged, reservations = 0, set()
    for entry in entries_in(ledger):
        if entry.k == "hold" and scope in entry.w:
            reservations.add(entry.i)
        elif entry.k == "close" and entry.i in reservations:
            reservations.remove(entry.i)
            charged += entry.a
    assert not reservations, "the daemon has ended, and something is still reserved"
    return charged


def most_within(samples: Sequence[tuple[float, int]], seconds: float) -> int:
    """By how much a counter grew at most in any stretch of so many seconds."""
    return max(
        later - earlier
        for at, later in samples
        for since, earlier in samples
        if since <= at <= since + seconds
    )


def table(found: Found) -> str:
    """For people."""
    titles = ("key", "requests", "cancelled", "refused", "ledger", "metered", "cap")
    lines = [("{:<22}" + "{:>10}" * 6).format(*titles)]
    for row in found.rows:
        of = row.outcomes
        counts = (row.requests, of.get(LEFT, 0), of.get(REFUSED, 0), row.ledger, row.metered)
        cap = row.cap if row.most is None else "-"
        lines.append(("{:<22}" + "{:>10}" * 6).format(row.key, *counts, cap))
        if row.most is not None:
            title = "  the most in any window, what was open included"
            lines.append(("{:<52}" + "{:>10}" * 3).format(title, *row.most, row.cap))
    lines += [f"{row.key}: {dict(sorted(row.outcomes.items()))}" for row in found.rows]
    lines.append(f"unseen where engines died: at most {found.unread_max}")
    return "\n".join(lines)


def main() -> int:
    """One run by the command line's word; 1 if the books disagree, 75 without an engine."""
    parser = argparse.ArgumentParser(prog="python -m tests.engines.meter", description=__doc__)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument("--at-once", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    plan = Plan(
        requests=chosen.requests,
        hard_cap=max(8_000, 24 * chosen.requests),
        rolling_cap=max(2_500, 3 * chosen.requests),
        window_seconds=10,
        waves=4,
        at_once=chosen.at_once,
        seed=chosen.seed,
    )
    try:
        program = fetched_engine()
    except ArchiveUnreachable as unreachable:
        say(f"NO REAL ENGINE WAS METERED: {unreachable}")
        return 75
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="cortexd-meter-") as name:
        directory = Path(name)
        write_models(directory / "models")
        found = trio.run(run, plan, program, directory / "models", directory)
    say(table(found))
    say(f"{time.monotonic() - began:.0f} s; again: --requests {plan.requests} --seed {plan.seed}")
    for problem in found.problems:
        say(f"PROBLEM: {problem}")
    return 1 if found.problems else 0


def say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (this is a program)


if __name__ == "__main__":
    sys.exit(main())

"""What becomes of spending when the operator changes the configuration: one ledger, many lives.

Each life is a daemon of its own over the same ledger, started with another configuration file and
ended with kill -9. In each, nothing that an operator or a client can look at is negative.
"""

import contextlib
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from cortexd.demo.neuron import SimulatedNeuron
from tests.support.daemon_process import DaemonProcess, chat, serving
from tests.support.fake_neuron import fake_neuron
from tests.support.raw_client import raw_client

COST = 15
FIFTEEN_TOKENS = (5, 10)
BOUND = 32 + 20  # the bytes of chat()'s messages and its max_tokens
TEN_YEARS_SECONDS = 316_224_000
HOUR = {"kind": "rolling", "seconds": 3600}

Fields = Mapping[str, object]


class Lives:
    """A ledger and a neuron that outlive the daemons of this test."""

    def __init__(self, directory: Path, neuron: SimulatedNeuron) -> None:
        self.directory = directory
        self.neuron = neuron

    def daemon(
        self, *keys: Fields, accounts: Sequence[Fields] = ()
    ) -> contextlib.AbstractAsyncContextManager[DaemonProcess]:
        """A daemon with these keys and accounts. What a crash leaves open stays so for an hour."""
        entitlements = {"keys": [dict(key) for key in keys], "accounts": list(accounts)}
        ledger = {"directory": str(self.directory / "ledger"), "grace_seconds": 3600}
        neurons = {"sim": self.neuron.url}
        return serving(self.directory, neurons, entitlements=entitlements, ledger=ledger)

    @contextlib.asynccontextmanager
    async def life(self, *keys: Fields, accounts: Sequence[Fields] = ()) -> AsyncIterator["Life"]:
        """The same; looked at from all sides when it is left."""
        async with self.daemon(*keys, accounts=accounts) as daemon:
            found = Life(daemon, self.neuron)
            await found.check_that_nothing_is_negative([str(key["key"]) for key in keys])
            yield found
            await found.check_that_nothing_is_negative([str(key["key"]) for key in keys])


class Life:
    """One daemon."""

    def __init__(self, daemon: DaemonProcess, neuron: SimulatedNeuron) -> None:
        self.daemon = daemon
        self.neuron = neuron

    async def ask(self, key: str = "sk-cap", **fields: object) -> httpx.Response:
        """One chat request; when it is refused, no neuron has seen it."""
        hits = self.neuron.chat_hits
        async with self.daemon.client(key) as client:
            answer = await client.post("/v1/chat/completions", json=chat(**fields))  # type: ignore[arg-type]
        assert self.neuron.chat_hits == hits + (answer.status_code == 200)
        return answer

    async def spend(self, requests: int, key: str = "sk-cap") -> None:
        """So many requests that are served."""
        for _ in range(requests):
            answer = await self.ask(key)
            assert answer.status_code == 200, answer.text

    async def is_refused(self, key: str = "sk-cap") -> bool:
        """Whether one more request is refused by a cap."""
        status = (await self.ask(key)).status_code
        assert status in (200, 429)
        return status == 429

    async def standing(self, key: str = "sk-cap") -> tuple[object, ...]:
        """Cap, spent, reserved, available at the top of GET /v1/budget."""
        budget = await self.daemon.budget(key)
        return tuple(budget[name] for name in ("hard_cap", "spent", "reserved", "available"))

    async def samples(self) -> dict[tuple[str, str], float]:
        """Every budget gauge of /metrics by name and the values of its labels."""
        async with httpx.AsyncClient(base_url=self.daemon.metrics, trust_env=False) as operator:
            text = (await operator.get("/metrics")).text
        return {
            (
                sample.name,
                " ".join(value for _, value in sorted(sample.labels.items())),
            ): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    async def check_that_nothing_is_negative(self, keys: Sequence[str]) -> None:
        """Wherever a number is shown."""
        for key in keys:
            numbers = list(numbers_in(await self.daemon.budget(key)))
            assert numbers
            assert min(numbers) >= 0
        samples = await self.samples()
        negative = {
            name
            for name, value in samples.items()
            if not (
                value >= 0 or math.isnan(value) or name[0] == "cortex_ledger_clock_skew_seconds"
            )
        }
        assert not negative
        assert samples["cortex_ledger_available", ""] == 1


def numbers_in(value: object) -> Sequence[float]:
    """Every number in a JSON value."""
    match value:
        case bool() | None | str():
            return ()
        case int() | float():
            return (value,)
        case list():
            return [number for one in value for number in numbers_in(one)]
        case dict():
            return [number for one in value.values() for number in numbers_in(one)]
    raise AssertionError(value)


@contextlib.asynccontextmanager
async def ledger_with_lives(directory: Path) -> AsyncIterator[Lives]:
    """A neuron that serves fifteen tokens per request, in front of no ledger yet."""
    async with fake_neuron(fixed_usage=FIFTEEN_TOKENS) as neuron:
        yield Lives(directory, neuron)


def key(name: str = "cap", **settings: object) -> Fields:
    """A key of an account of its own, or of the account in `settings`."""
    return {"key": f"sk-{name}", "account_id": name, "key_id": name, **settings}


async def test_a_cap_below_what_is_spent_admits_nothing_until_it_is_raised(tmp_path: Path) -> None:
    async with ledger_with_lives(tmp_path) as lives:
        async with lives.life(key(hard_cap=1000)) as life:
            await life.spend(3)
        async with lives.life(key(hard_cap=40)) as life:
            assert await life.standing() == (40, 45, 0, 0)
            assert await life.is_refused()
            assert "45 spent" in (await life.ask()).text
            gauges = await life.samples()
            assert gauges["cortex_budget_hard_cap_tokens", "cap key"] == 40
            assert gauges["cortex_budget_spent_tokens", "cap key"] == 45
        async with lives.life(key(hard_cap=45 + BOUND)) as life:
            assert await life.standing() == (45 + BOUND, 45, 0, BOUND)
            await life.spend(1)
            assert await life.is_refused()
            assert await life.standing() == (45 + BOUND, 60, 0, BOUND - COST)


async def test_a_cap_lowered_over_a_crash_counts_what_was_open(tmp_path: Path) -> None:
    async with ledger_with_lives(tmp_path) as lives:
        lives.neuron.switches.gated = True
        async with (
            lives.daemon(key(hard_cap=1000)) as daemon,
            raw_client(daemon.gateway) as client,
        ):
            await client.post(chat(stream=True))
            await lives.neuron.allow(1)
            await client.read_until(b'"content":"')
            await daemon.kill()
        lives.neuron.switches.gated = False
        async with lives.life(key(hard_cap=10)) as life:
            assert await life.standing() == (10, 0, BOUND, 0)
            assert await life.is_refused()
        async with lives.life(key(hard_cap=BOUND - 1)) as life:
            assert await life.is_refused(), "another crash does not release it"
        async with lives.life(key(hard_cap=2 * BOUND)) as life:
            await life.spend(1)


async def test_a_key_that_is_taken_out_and_put_back_goes_on_where_it_was(tmp_path: Path) -> None:
    other = key("other", hard_cap=100)
    async with ledger_with_lives(tmp_path) as lives:
        async with lives.life(key(hard_cap=100), other) as life:
            await life.spend(2)
        async with lives.life(other) as life:
            assert (await life.ask()).status_code == 401
            assert await life.standing("sk-other") == (100, 0, 0, 100)
            gauges = await life.samples()
            assert ("cortex_budget_spent_tokens", "cap key") not in gauges
        new_secret = {**key(hard_cap=100), "key": "sk-new"}
        async with lives.life(new_secret, other) as life:
            assert (await life.ask()).status_code == 401
            assert await life.standing("sk-new") == (100, 30, 0, 70)


async def test_what_is_spent_while_a_cap_is_away_counts_when_it_is_back(tmp_path: Path) -> None:
    async with ledger_with_lives(tmp_path) as lives:
        for window in ({"kind": "balance"}, HOUR):
            name = str(window["kind"])
            capped = key(name, hard_cap=100, window=window)
            async with lives.life(capped) as life:
                await life.spend(1, f"sk-{name}")
            async with lives.life(key(name)) as life:
                assert await life.standing(f"sk-{name}") == (None, 15, 0, None)
                await life.spend(2, f"sk-{name}")
            async with lives.life(capped) as life:
                assert await life.standing(f"sk-{name}") == (100, 45, 0, 55)


async def test_a_changed_window_takes_over_what_is_known_of_its_time(tmp_path: Path) -> None:
    month = {"kind": "calendar", "period": "month", "time_zone": "Europe/Berlin"}
    changes: Sequence[tuple[Fields, int]] = (
        ({"kind": "balance"}, 0),
        (HOUR, 0),  # the balance knows no times, so this begins empty
        ({"kind": "rolling", "seconds": 7200}, 15),
        ({"kind": "fixed", "seconds": TEN_YEARS_SECONDS}, 30),
        (month, 45),
        ({"kind": "balance"}, 75),  # everything that was ever spent
        (HOUR, 75),  # known from before, and counted all the time since
    )
    async with ledger_with_lives(tmp_path) as lives:
        for window, spent in changes:
            async with lives.life(key(hard_cap=1000, window=window)) as life:
                budget = await life.daemon.budget()
                assert (budget["window"], budget["spent"]) == (window, spent)
                await life.spend(1)
                assert (await life.daemon.budget())["spent"] == spent + COST


async def test_a_cap_on_an_account_begins_with_the_history_of_its_keys(tmp_path: Path) -> None:
    keys = [key(name, account_id="team") for name in ("a", "b")]
    async with ledger_with_lives(tmp_path) as lives:
        async with lives.life(*keys) as life:
            await life.spend(1, "sk-a")
            await life.spend(1, "sk-b")
        team = {"account_id": "team", "hard_cap": 30 + BOUND}
        async with lives.life(*keys, accounts=[team]) as life:
            budget = await life.daemon.budget("sk-a")
            assert budget["hard_cap"] is None
            assert spent_by_window(budget["caps"]) == {"balance": 30}
            await life.spend(1, "sk-a")
            assert await life.is_refused("sk-b")
        async with lives.life(*keys, accounts=[{**team, "hard_cap": 0}]) as life:
            assert await life.is_refused("sk-a")
            gauges = await life.samples()
            assert gauges["cortex_budget_spent_tokens", "team account"] == 45


async def test_of_several_caps_each_goes_on_when_others_come_and_go(tmp_path: Path) -> None:
    hourly, total = {"hard_cap": 500, "window": HOUR}, {"hard_cap": 300}
    requests = {"count": 5, "window": HOUR}
    async with ledger_with_lives(tmp_path) as lives:
        async with lives.life(key(caps=[hourly])) as life:
            await life.spend(1)
        async with lives.life(key(caps=[total, hourly], max_requests=[requests])) as life:
            budget = await life.daemon.budget()
            assert (budget["hard_cap"], budget["available"]) == (300, 285)
            assert spent_by_window(budget["caps"]) == {"balance": 15, "rolling": 15}
            assert spent_by_window(budget["max_requests"]) == {"rolling": 0}
            await life.spend(2)
        async with lives.life(key(caps=[total], max_requests=[{**requests, "count": 1}])) as life:
            budget = await life.daemon.budget()
            assert spent_by_window(budget["caps"]) == {"balance": 45}
            assert spent_by_window(budget["max_requests"]) == {"rolling": 2}
            assert await life.is_refused()
            assert "1 request in any 3600 s; 2 made" in (await life.ask()).text
        async with lives.life(key(caps=[hourly])) as life:
            await life.spend(1)
            assert await life.standing() == (500, 60, 0, 440)


def spent_by_window(caps: object) -> dict[str, int]:
    """What is spent under each of some caps, by the kind of its window."""
    assert isinstance(caps, list)
    return {cap["window"]["kind"]: cap["spent"] for cap in caps}


async def test_a_shadow_that_becomes_a_cap_has_counted_all_the_time(tmp_path: Path) -> None:
    async with ledger_with_lives(tmp_path) as lives:
        async with lives.life(key(hard_cap=40, max_in_flight=1, shadow=True)) as life:
            await life.spend(3)
            assert await life.standing() == (40, 45, 0, 0)
            name = "cortex_budget_shadow_refusals_total"
            assert (await life.samples())[name, "cap cap"] == 3
        shadows = [line for line in life.daemon.log.read_text().splitlines() if "_shadow " in line]
        assert len(shadows) == 3
        assert all("key_id=cap scope=key:cap cap=tok/balance asked=52 " in line for line in shadows)
        async with lives.life(key(hard_cap=40)) as life:
            assert await life.is_refused()
        async with lives.life(key(hard_cap=40, shadow=True)) as life:
            await life.spend(1)
            assert await life.standing() == (40, 60, 0, 0)

"""The promise, on real sockets: a request that does not fit never reaches a neuron."""

import re
from collections.abc import Mapping
from pathlib import Path

import httpx
import trio

from tests.support.daemon_process import CAPPED_KEY, DaemonProcess, chat, serving
from tests.support.fake_neuron import fake_neuron
from tests.support.raw_client import raw_client

ROLLING_KEY = {
    "key": "sk-rolling",
    "account_id": "acct-rolling",
    "hard_cap": 100,
    "window": {"kind": "rolling", "seconds": 3600},
}
FIFTEEN_TOKENS = (5, 10)


async def ask(client: httpx.AsyncClient, **fields: object) -> httpx.Response:
    """One chat request."""
    return await client.post("/v1/chat/completions", json=chat(**fields))  # type: ignore[arg-type]


def error_of(answer: httpx.Response) -> Mapping[str, object]:
    """The `error` object of an answer."""
    error: Mapping[str, object] = answer.json()["error"]
    return error


async def test_within_the_cap_a_request_is_served_with_exactly_one_hit(tmp_path: Path) -> None:
    async with (
        fake_neuron(fixed_usage=FIFTEEN_TOKENS) as neuron,
        serving(tmp_path, {"sim": neuron.url}) as daemon,
        daemon.client() as client,
    ):
        answer = await ask(client)
        budget = await daemon.budget()
        assert (answer.status_code, neuron.chat_hits) == (200, 1)
        assert answer.json()["usage"]["total_tokens"] == 15
        assert (budget["spent"], budget["reserved"], budget["available"]) == (15, 0, 85)


async def test_a_small_cap_is_used_to_its_end(tmp_path: Path) -> None:
    """A bound far above the true cost must not make a small cap useless."""
    async with (
        fake_neuron(fixed_usage=FIFTEEN_TOKENS) as neuron,
        serving(tmp_path, {"sim": neuron.url}) as daemon,
        daemon.client() as client,
    ):
        statuses = [(await ask(client)).status_code for _ in range(20)]
        served = statuses.count(200)
        budget = await daemon.budget()
        assert statuses == [200] * served + [429] * (20 - served)
        assert served >= 4
        assert neuron.chat_hits == served
        assert budget["spent"] == 15 * served <= 100
        assert budget["reserved"] == 0


async def test_over_a_balance_a_request_is_refused_before_any_neuron_is_hit(tmp_path: Path) -> None:
    async with (
        fake_neuron() as neuron,
        serving(tmp_path, {"sim": neuron.url}) as daemon,
        daemon.client() as client,
    ):
        answer = await ask(client, max_tokens=500)
        error = error_of(answer)
        assert (answer.status_code, neuron.chat_hits) == (429, 0)
        assert (error["code"], error["type"]) == ("insufficient_quota", "insufficient_quota")
        assert "retry-after" not in answer.headers
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-ratelimit-limit-tokens"] == "100"
        assert answer.headers["x-ratelimit-remaining-tokens"] == "100"
        numbers = set(re.findall(r"\d+", str(error["message"])))
        assert {"100", "0", "532"} <= numbers, error["message"]
        assert "key-cap" in str(error["message"])


async def test_over_a_rolling_cap_a_request_is_told_when_it_fits(tmp_path: Path) -> None:
    async with (
        fake_neuron(fixed_usage=FIFTEEN_TOKENS) as neuron,
        serving(tmp_path, {"sim": neuron.url}, keys=[ROLLING_KEY]) as daemon,
        daemon.client("sk-rolling") as client,
    ):
        while (answer := await ask(client)).status_code == 200:
            pass
        assert error_of(answer)["code"] == "rate_limit_exceeded"
        assert 3500 < int(answer.headers["retry-after"]) <= 3605
        assert answer.headers["x-should-retry"] == "false"
        assert answer.headers["x-ratelimit-reset-tokens"].startswith(("59m", "1h0m"))
        assert neuron.chat_hits >= 4


async def test_waiting_as_long_as_retry_after_says_is_enough(tmp_path: Path) -> None:
    short = {**ROLLING_KEY, "window": {"kind": "rolling", "seconds": 1}}
    async with (
        fake_neuron(fixed_usage=FIFTEEN_TOKENS) as neuron,
        serving(tmp_path, {"sim": neuron.url}, keys=[short]) as daemon,
        daemon.client("sk-rolling") as client,
    ):
        refused_at: float | None = None
        for _ in range(50):
            answer = await ask(client)
            if answer.status_code == 429:
                refused_at = trio.current_time()
                break
        assert refused_at is not None, "a cap of 100 tokens a second was never reached"
        assert "x-should-retry" not in answer.headers
        seconds = int(answer.headers["retry-after"])
        with trio.move_on_at(refused_at + seconds):
            await trio.sleep_forever()
        assert (await ask(client)).status_code == 200


async def test_a_request_larger_than_its_rolling_cap_is_told_that_waiting_cannot_help(
    tmp_path: Path,
) -> None:
    async with (
        fake_neuron() as neuron,
        serving(tmp_path, {"sim": neuron.url}, keys=[ROLLING_KEY]) as daemon,
        daemon.client("sk-rolling") as client,
    ):
        answer = await ask(client, max_tokens=500)
        assert error_of(answer)["code"] == "rate_limit_exceeded"
        assert answer.headers["retry-after"] == "3600"
        assert answer.headers["x-should-retry"] == "false"
        assert "wait" in str(error_of(answer)["message"])
        assert neuron.chat_hits == 0


async def test_the_caps_of_key_and_account_hold_together(tmp_path: Path) -> None:
    keys = [
        {"key": f"sk-{name}", "account_id": "shared", "key_id": name, "hard_cap": 90}
        for name in ("one", "two")
    ]
    entitlements = {"keys": keys, "accounts": [{"account_id": "shared", "hard_cap": 100}]}
    async with (
        fake_neuron(fixed_usage=FIFTEEN_TOKENS) as neuron,
        serving(tmp_path, {"sim": neuron.url}, entitlements=entitlements) as daemon,
        daemon.client("sk-one") as one,
        daemon.client("sk-two") as two,
    ):
        served = 0
        while (await ask(one)).status_code == 200:
            served += 1
        while (answer := await ask(two)).status_code == 200:
            served += 1
        assert "account" in str(error_of(answer)["message"])
        budget = await daemon.budget("sk-two")
        caps = {cap["scope"]: cap for cap in budget["caps"]}  # type: ignore[attr-defined]
        assert set(caps) == {"key", "account"}
        assert caps["account"]["spent"] == 15 * served <= 100


async def test_two_hundred_requests_at_once_never_pass_the_cap(tmp_path: Path) -> None:
    async with (
        fake_neuron(fixed_usage=FIFTEEN_TOKENS) as neuron,
        serving(tmp_path, {"sim": neuron.url}) as daemon,
        daemon.client(limits=httpx.Limits(max_connections=200)) as client,
    ):
        statuses: list[int] = []

        async def one() -> None:
            statuses.append((await ask(client)).status_code)

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(one)
        budget = await daemon.budget()
        assert set(statuses) == {200, 429}
        assert neuron.chat_hits == statuses.count(200)
        assert budget["spent"] == 15 * neuron.chat_hits <= 100
        assert budget["reserved"] == 0


async def test_spend_survives_a_restart_and_a_kill(tmp_path: Path) -> None:
    async with fake_neuron(fixed_usage=FIFTEEN_TOKENS) as neuron:
        for expected, gently in ((15, True), (30, False), (45, True)):
            async with serving(tmp_path, {"sim": neuron.url}) as daemon, daemon.client() as client:
                assert (await ask(client)).status_code == 200
                assert (await daemon.budget())["spent"] == expected
                if gently:
                    assert await daemon.stop() == 0
                else:
                    await daemon.kill()


async def test_an_uncapped_key_is_served_and_its_budget_says_so(tmp_path: Path) -> None:
    free = {"key": "sk-free", "account_id": "free"}
    async with (
        fake_neuron(fixed_usage=FIFTEEN_TOKENS) as neuron,
        serving(tmp_path, {"sim": neuron.url}, keys=[free]) as daemon,
        daemon.client("sk-free") as client,
    ):
        answer = await ask(client, max_tokens=None)
        assert answer.status_code == 200
        assert "x-ratelimit-limit-tokens" not in answer.headers
        budget = await daemon.budget("sk-free")
        assert (budget["hard_cap"], budget["available"], budget["caps"]) == (None, None, [])
        assert budget["spent"] == 15


async def budget_is_settled(daemon: DaemonProcess, key: str = "sk-cap") -> Mapping[str, object]:
    """The budget once nothing is reserved any more."""
    with trio.fail_after(10):
        while (budget := await daemon.budget(key))["reserved"]:
            pass
    return budget


async def test_a_client_that_hangs_up_is_charged_for_what_was_seen(tmp_path: Path) -> None:
    big = {**CAPPED_KEY, "hard_cap": 10_000}
    async with (
        fake_neuron(gated=True, reply_tokens=2000) as neuron,
        serving(tmp_path, {"sim": neuron.url}, keys=[big]) as daemon,
    ):
        async with raw_client(daemon.gateway) as client:
            await client.post(chat(max_tokens=2000, stream=True))
            await neuron.allow(7)
            await client.read_until(b'"content":"', 7)
        left_at = trio.current_time()
        with trio.fail_after(5):
            await neuron.wait_for_hang_up()
        assert trio.current_time() - left_at < 1
        budget = await budget_is_settled(daemon)
        assert 7 < budget["spent"] < 200  # type: ignore[operator]


async def test_a_client_that_hangs_up_before_the_first_byte_frees_the_neuron(
    tmp_path: Path,
) -> None:
    big = {**CAPPED_KEY, "hard_cap": 10_000}
    async with (
        fake_neuron(silent=True) as neuron,
        serving(tmp_path, {"sim": neuron.url}, keys=[big]) as daemon,
    ):
        async with raw_client(daemon.gateway) as client:
            await client.post(chat(max_tokens=500, stream=True))
            await neuron.wait_for_hits(1)
        with trio.fail_after(5):
            await neuron.wait_for_hang_up()
        budget = await budget_is_settled(daemon)
        assert 0 < budget["spent"] < 532  # type: ignore[operator]

"""The daemon and the neurons behind it: credentials, health, lies and garbage."""

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trio

from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import BreakKind, Broken, Canned, UsageLie
from tests.support.daemon_process import CAPPED_KEY, DaemonProcess, chat, serving
from tests.support.fake_neuron import fake_neuron, running

pytestmark = pytest.mark.slow

BIG_KEY = {**CAPPED_KEY, "hard_cap": 10_000_000}
QUICK_POLLS = {"interval_seconds": 0.1, "timeout_seconds": 2}
CHAT = "/v1/chat/completions"


async def ask(client: httpx.AsyncClient, *, stream: bool = False) -> httpx.Response:
    """One chat request."""
    return await client.post(CHAT, json=chat(stream=stream))


async def health_is(client: httpx.AsyncClient, status: str) -> None:
    """Ask until the fleet's health is so."""
    with trio.fail_after(20):
        while (await client.get("/health")).json()["status"] != status:
            pass


@pytest.mark.parametrize("kind", ["neuron", "openai"])
async def test_a_neurons_own_key_goes_to_that_neuron_and_nowhere_else(
    tmp_path: Path, kind: str
) -> None:
    """And the client's key goes to no neuron at all."""
    async with fake_neuron("locked") as locked, fake_neuron("open") as unlocked:
        neurons = {
            "locked": {"endpoint": locked.url, "kind": kind, "api_key": "sk-SENTINEL"},
            "open": {"endpoint": unlocked.url, "kind": kind},
        }
        async with (
            serving(tmp_path, neurons, keys=[BIG_KEY]) as daemon,
            daemon.client() as client,
            httpx.AsyncClient(base_url=daemon.metrics, trust_env=False) as operator,
        ):
            for stream in (False, True):
                assert (await ask(client, stream=stream)).status_code == 200
            locked.switches.refuse(503)
            assert (await ask(client)).status_code == 200, "the other neuron takes over"
            shown = [(await operator.get(path)).text for path in ("/status", "/metrics")]
            assert await daemon.stop() == 0
    assert locked.chat_hits >= 1
    assert unlocked.chat_hits >= 1
    sent = {request.header(b"authorization") for request in locked.seen}
    assert sent == {"Bearer sk-SENTINEL"}
    assert {request.header(b"authorization") for request in unlocked.seen} == {None}
    assert not [text for text in (*shown, daemon.log.read_text()) if "SENTINEL" in text]


async def test_it_takes_three_missed_polls_to_be_unhealthy_and_one_answer_to_be_healthy(
    tmp_path: Path,
) -> None:
    neuron = SimulatedNeuron()
    async with contextlib.AsyncExitStack() as stack:
        async with running(neuron):
            daemon = await stack.enter_async_context(
                serving(tmp_path, {"a": neuron.url}, keys=[BIG_KEY], polling=QUICK_POLLS)
            )
            client = await stack.enter_async_context(daemon.client())
            assert (await ask(client)).status_code == 200
        await health_is(client, "degraded")
        refused = await ask(client)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_neuron")
        async with running(neuron, port=neuron.port):
            await health_is(client, "ok")
            assert (await ask(client)).status_code == 200
            assert await daemon.stop() == 0
    events = re.findall(r"event=(neuron_\w+) neuron=a(?:.* misses=(\d+))?", daemon.log.read_text())
    assert events == [
        ("neuron_healthy", ""),
        ("neuron_missed", ""),
        ("neuron_unhealthy", "3"),
        ("neuron_healthy", ""),
    ]


GARBAGE = [
    b"null",
    b'{"models": [{"id": 7}]}',
    b"\xff\xfe{",
    b"[" * 100_000,
    b'"' + b"x" * 5_000_000,
]


@pytest.mark.parametrize("path", ["/models", "/health", "/v1/models"])
async def test_garbage_in_a_poll_ends_nothing_and_is_forgotten_with_the_next_good_answer(
    tmp_path: Path, path: str
) -> None:
    kind = "openai" if path == "/v1/models" else "neuron"
    polls = {**QUICK_POLLS, "misses_to_unhealthy": 1}
    async with fake_neuron() as neuron:
        neurons = {"a": {"endpoint": neuron.url, "kind": kind}}
        async with (
            serving(tmp_path, neurons, keys=[BIG_KEY], polling=polls) as daemon,
            daemon.client() as client,
        ):
            for body in GARBAGE:
                neuron.switches.faults[path] = Canned(200, body)
                with trio.fail_after(20):
                    await neuron.wait_for_path(path, neuron.counters.hits[path] + 2)
            neuron.switches.faults.clear()
            await health_is(client, "ok")
            assert (await ask(client)).status_code == 200
            assert await daemon.stop() == 0
    assert "event=bug" not in daemon.log.read_text()


@contextlib.asynccontextmanager
async def watched(directory: Path, neuron: SimulatedNeuron) -> AsyncIterator[DaemonProcess]:
    """A daemon in front of `neuron` that must still be sound after the test."""
    async with serving(directory, {"a": neuron.url}, keys=[BIG_KEY]) as daemon:
        yield daemon
        neuron.switches.broken = None
        neuron.switches.usage = UsageLie.HONEST
        async with daemon.client() as client:
            assert (await ask(client)).status_code == 200
        budget = await daemon.settled_budget()
        assert int(str(budget["spent"])) >= neuron.counters.served.total
        assert await daemon.stop() == 0
    assert "event=bug" not in daemon.log.read_text()


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_no_way_to_break_off_looks_like_success_or_is_free(
    tmp_path: Path, stream: bool
) -> None:
    async with fake_neuron(reply_tokens=12) as neuron, watched(tmp_path, neuron) as daemon:
        for kind in set(BreakKind) - {BreakKind.SILENCE}:
            neuron.switches.broken = Broken(kind, after_tokens=5)
            async with daemon.client() as client:
                answer = await ask(client, stream=stream)
            served = neuron.counters.served.total
            spent = int(str((await daemon.settled_budget())["spent"]))
            assert spent >= served, kind
            if answer.status_code == 200:
                assert "[DONE]" not in answer.text, kind
                assert '"error"' in answer.text, kind
            else:
                assert answer.status_code == 502, kind


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_no_lie_about_usage_makes_a_request_cheaper_than_what_was_seen(
    tmp_path: Path, stream: bool
) -> None:
    """Half the truth in a plain answer is the one lie that nobody but the engine can know of."""
    lies: list[UsageLie | dict[str, object]] = [
        lie for lie in UsageLie if stream or lie is not UsageLie.LOW
    ]
    lies += [{}, {"prompt_tokens": 1}, {"prompt_tokens": [], "completion_tokens": {}}]
    lies += [{"prompt_tokens": 10**30, "completion_tokens": -(10**30)}]
    async with (
        fake_neuron(reply_tokens=12) as neuron,
        watched(tmp_path, neuron) as daemon,
        daemon.client() as client,
    ):
        before = 0
        for lie in lies:
            neuron.switches.usage = lie
            served_before = neuron.counters.served.total
            answer = await ask(client, stream=stream)
            # NaN is no JSON, so that a plain answer with it is none.
            expected = 502 if lie is UsageLie.NOT_A_NUMBER and not stream else 200
            assert answer.status_code == expected, lie
            spent = int(str((await daemon.settled_budget())["spent"]))
            assert spent - before >= neuron.counters.served.total - served_before, lie
            before = spent

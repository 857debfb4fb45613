"""One request at a time through cortexd to a real llama-server, and what the engine says it cost.

The engine's own counters are a witness that shares no code with cortexd and believes none of its
bodies: whatever is sent, the ledger has to be at or above them.
"""

import contextlib
import json
import signal
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from tests.engines.real_engine import Engine, Meter, llama_server
from tests.support.daemon_process import CAPPED_KEY, DaemonProcess, chat, serving
from tests.support.raw_client import RawClient, raw_client

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 30
QUICK_POLLING = {"interval_seconds": 0.2, "timeout_seconds": 0.3, "misses_to_unhealthy": 2}
KEY = {**CAPPED_KEY, "hard_cap": 100_000}


class Spending(msgspec.Struct, frozen=True):
    """What the ledger says of one key."""

    hard_cap: int
    spent: int
    reserved: int


class Pair:
    """A daemon in front of a real engine, and both of their books."""

    def __init__(self, engine: Engine, daemon: DaemonProcess) -> None:
        self.engine = engine
        self.daemon = daemon
        self._spent = 0
        self._metered = Meter(0, 0, 0, 0)

    async def costs(self) -> tuple[int, Meter]:
        """Charged by the ledger and counted by the engine since last asked, once both are done."""
        metered = await self.engine.meter_when_idle()
        spending = msgspec.convert(await self.daemon.settled_budget(), Spending)
        charged, counted = spending.spent - self._spent, metered.since(self._metered)
        self._spent, self._metered = spending.spent, metered
        return charged, counted


@contextlib.asynccontextmanager
async def pair(
    program: Path, model: Path, directory: Path, *, slots: int = 4, **sections: object
) -> AsyncIterator[Pair]:
    """A daemon whose only neuron is a llama-server that serves `model`."""
    async with llama_server(program, model, slots=slots) as engine:
        neurons = {"llama": {"endpoint": engine.url, "kind": "openai"}}
        async with serving(
            directory,
            neurons,
            keys=[KEY],
            **sections,  # type: ignore[arg-type]  # further settings, by name
        ) as daemon:
            yield Pair(engine, daemon)
            assert "event=overrun" not in daemon.log.read_text()


def events(body: str) -> list[Mapping[str, object]]:
    """The JSON objects of an event stream, without its [DONE]."""
    data = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


def text_of(chunks: Sequence[Mapping[str, object]]) -> str:
    """What the chunks of a stream with one choice say together."""
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]  # type: ignore[attr-defined]
    return "".join(delta.get("content") or "" for delta in deltas)


async def ask(pair: Pair, **fields: object) -> httpx.Response:
    """One chat request through the gateway."""
    async with pair.daemon.client() as client:
        return await client.post("/v1/chat/completions", json=chat(**fields))  # type: ignore[arg-type]


async def test_a_plain_answer_costs_what_the_engine_counted(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with pair(llama_server_program, tiny_models / "stops.gguf", tmp_path) as both:
        lengths = set()
        for _ in range(5):
            answer = await ask(both, model="stops", max_tokens=200)
            assert answer.status_code == 200, answer.text
            usage = answer.json()["usage"]
            charged, counted = await both.costs()
            assert charged == usage["total_tokens"] == counted.tokens
            assert answer.json()["choices"][0]["finish_reason"] == "stop"
            lengths.add(usage["completion_tokens"])
        assert len(lengths) > 1, "a real model's answers differ in length"


@pytest.mark.parametrize("include_usage", [True, False])
async def test_a_streamed_answer_costs_what_the_engine_counted(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, include_usage: bool
) -> None:
    options = {"stream_options": {"include_usage": True}} if include_usage else {}
    async with pair(llama_server_program, tiny_models / "stops.gguf", tmp_path) as both:
        answer = await ask(both, model="stops", max_tokens=200, stream=True, **options)
        charged, counted = await both.costs()
        assert answer.status_code == 200, answer.text
        assert answer.text.endswith("data: [DONE]\n\n")
        chunks = events(answer.text)
        assert text_of(chunks).strip()
        assert charged == counted.tokens
        reported = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
        totals = [usage["total_tokens"] for usage in reported]  # type: ignore[index]
        assert totals == ([charged] if include_usage else [])


async def test_the_model_is_listed_with_the_context_of_one_slot(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with (
        pair(llama_server_program, tiny_models / "stops.gguf", tmp_path) as both,
        both.daemon.client() as client,
    ):
        (model,) = (await client.get("/v1/models")).json()["data"]
        assert (model["id"], model["loaded"], model["limit"]) == ("stops", True, {"context": 2048})


async def test_without_a_limit_the_context_is_the_limit(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with pair(llama_server_program, tiny_models / "endless.gguf", tmp_path) as both:
        answer = await ask(both, model="endless", max_tokens=None)
        charged, counted = await both.costs()
        assert answer.json()["choices"][0]["finish_reason"] == "length"
        assert charged == answer.json()["usage"]["total_tokens"] == counted.tokens <= 2048


SMUGGLED = [
    ('"n_predict": 64', 8),
    ('"n_predict": -1', 8),
    ('"max_completion_tokens": 64', 8),
    ('"max_completion_tokens": 4', 4),
    ('"max_output_tokens": 64, "max_new_tokens": 64, "num_predict": 64', 8),
    ('"n": 3', 24),
    ('"n_cmpl": 3', 8),
    ('"n": 1, "n": 3', 24),
    ('"best_of": 3', 8),
    ('"min_tokens": 64, "ignore_eos": true', 8),
    ('"max_tokens": 12', 12),
    ('"max\\u005ftokens": 12', 12),
    ('"n_predict": 64, "n_predict": -1', 8),
    ('"prompt": ["one", "two", "three"]', 8),
    ('"t_max_predict_ms": 100000, "cache_prompt": false, "id_slot": 2', 8),
    ('"stream_options": {"include_usage": false}', 8),
]


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_no_body_makes_the_engine_do_more_than_was_reserved(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, stream: str
) -> None:
    """Each of these fields, let through, makes one engine or another generate more."""
    async with (
        pair(llama_server_program, tiny_models / "endless.gguf", tmp_path) as both,
        both.daemon.client() as client,
    ):
        for smuggled, generated_max in SMUGGLED:
            body = (
                '{"model": "endless", "messages": [{"role": "user", "content": "hi"}],'
                f' "max_tokens": 8, "stream": {stream}, {smuggled}}}'
            )
            answer = await client.post("/v1/chat/completions", content=body)
            charged, counted = await both.costs()
            assert answer.status_code == 200, (smuggled, answer.text)
            assert 0 < counted.generated <= generated_max, smuggled
            assert counted.tokens <= charged, smuggled


@pytest.mark.parametrize("limit", ["0", "-1", "true", '"8"', "8.9", "1e3", "[8]", "1099511627776"])
async def test_a_limit_that_engines_read_differently_never_gets_there(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, limit: str
) -> None:
    async with (
        pair(llama_server_program, tiny_models / "endless.gguf", tmp_path) as both,
        both.daemon.client() as client,
    ):
        body = f'{{"model": "endless", "messages": [{{"role": "user"}}], "max_tokens": {limit}}}'
        answer = await client.post("/v1/chat/completions", content=body)
        assert answer.status_code == 400, answer.text
        assert answer.json()["error"]["param"] == "max_tokens"
        assert await both.costs() == (0, Meter(0, 0, 0, 0))


PROMPTS = {
    "bytes that are a token each": "zq9 " * 100,
    "markers of the template": "<|im_start|><|im_end|>" * 20,
    "no letter is said twice": "".join(map(chr, range(32, 260))),
    "letters that come apart": "e\u0301\u1ea5\ufb03" * 40,
    "escapes": '\\"\n\t\x00\x7f' * 40,
    "nothing": "",
}


@pytest.mark.parametrize("content", PROMPTS.values(), ids=PROMPTS)
async def test_no_prompt_is_more_than_was_reserved_for_it(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, content: str
) -> None:
    """In a vocabulary as small as this model's nearly every byte is a token of its own."""
    async with pair(llama_server_program, tiny_models / "endless.gguf", tmp_path) as both:
        messages = [{"role": "user", "content": content}] * 3
        answer = await ask(both, model="endless", max_tokens=1, messages=messages)
        charged, counted = await both.costs()
        assert answer.status_code == 200, answer.text
        assert charged == counted.tokens  # and no overrun, which `pair` looks for


async def test_a_client_that_leaves_a_stream_is_charged_no_less_than_the_engine_did(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with pair(llama_server_program, tiny_models / "endless.gguf", tmp_path) as both:
        async with raw_client(both.daemon.gateway) as client:
            await client.post(chat(model="endless", max_tokens=1500, stream=True))
            await client.read_until(b'"content":"', 7)
        charged, counted = await both.costs()
        assert 7 <= counted.generated < 1000, "the engine went on without a client"
        assert counted.tokens <= charged


async def test_a_client_that_leaves_a_plain_request_stops_the_engine_and_pays_in_full(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with pair(llama_server_program, tiny_models / "endless.gguf", tmp_path) as both:
        async with raw_client(both.daemon.gateway) as client:
            await client.post(chat(model="endless", max_tokens=2000))
            await both.engine.meter_when(lambda meter: meter.busy == 1)
        charged, counted = await both.costs()
        assert counted.tokens <= charged
        assert charged > 2000


async def test_a_client_that_leaves_while_it_waits_for_its_turn_gives_its_place_up(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with (
        pair(llama_server_program, tiny_models / "endless.gguf", tmp_path, slots=1) as both,
        raw_client(both.daemon.gateway) as first,
    ):
        await first.post(chat(model="endless", max_tokens=1900, stream=True))
        await first.read_until(b'"content":"')
        async with raw_client(both.daemon.gateway) as second:
            await second.post(chat(model="endless", max_tokens=1900, stream=True))
            await both.engine.meter_when(lambda meter: meter.waiting == 1)
        await both.engine.meter_when(lambda meter: not meter.waiting)
        await first.stream.aclose()
        charged, counted = await both.costs()
        assert counted.tokens <= charged
        assert counted.generated < 2000, "the one that was given up was served"


async def leave_once_done(both: Pair, **fields: object) -> tuple[int, Meter]:
    """Ask for a stream, read nothing of it, and leave when the engine has done its work."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection = trio.SocketStream(trio.socket.from_stdlib_socket(client))
    host, port = both.daemon.gateway.removeprefix("http://").split(":")
    await connection.socket.connect((host, int(port)))
    async with connection:
        await RawClient(connection).post(
            chat(model="endless", max_tokens=2000, stream=True, **fields)  # type: ignore[arg-type]  # further fields, by name
        )
        await both.engine.meter_when(lambda meter: meter.busy > 0)
        await both.engine.meter_when_idle()
    return await both.costs()


async def test_a_client_that_reads_nothing_pays_for_what_the_engine_did(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    """One token is one byte here, in an event of hundreds of bytes that pile up unread."""
    async with pair(llama_server_program, tiny_models / "endless.gguf", tmp_path) as both:
        charged, counted = await leave_once_done(both, logit_bias={str(ord("a") - 33): 100})
        assert counted.generated > 1000
        assert counted.tokens <= charged


HIDDEN = {
    "a stop text that is always about to come": {
        "logit_bias": {str(ord("a") - 33): 100},
        "stop": ["a" * 3000 + "b"],
    },
    "the first byte of a letter, for ever": {"logit_bias": {"226": 100}},
}


@pytest.mark.parametrize("fields", HIDDEN.values(), ids=HIDDEN)
async def test_tokens_that_the_engine_keeps_to_itself_are_paid_for(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, fields: Mapping[str, object]
) -> None:
    """Engines hold text back while it may yet change; what was seen says nothing about it."""
    async with pair(llama_server_program, tiny_models / "endless.gguf", tmp_path) as both:
        async with raw_client(both.daemon.gateway) as client:
            body = chat(model="endless", max_tokens=2000, stream=True, **fields)  # type: ignore[arg-type]  # fields, by name
            await client.post(body)
            await both.engine.meter_when(lambda meter: meter.busy > 0)
        charged, counted = await both.costs()
        assert counted.generated > 0
        assert counted.tokens <= charged


async def test_an_engine_that_hangs_is_unhealthy_until_it_answers_again(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    model = tiny_models / "stops.gguf"
    async with (
        pair(llama_server_program, model, tmp_path, polling=QUICK_POLLING) as both,
        both.daemon.client() as client,
    ):

        async def healthy_nodes_become(count: int) -> None:
            with trio.fail_after(PATIENCE_SECONDS):
                while (await client.get("/health")).json()["nodes"]["healthy"] != count:
                    pass

        await healthy_nodes_become(1)
        both.engine.process.send_signal(signal.SIGSTOP)
        await healthy_nodes_become(0)
        refused = await ask(both, model="stops")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_neuron")
        assert (await both.daemon.settled_budget())["spent"] == 0
        both.engine.process.send_signal(signal.SIGCONT)
        await healthy_nodes_become(1)
        assert (await ask(both, model="stops")).status_code == 200


async def test_an_engine_that_dies_in_a_stream_ends_it_with_an_error_and_is_charged(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with (
        pair(llama_server_program, tiny_models / "endless.gguf", tmp_path) as both,
        raw_client(both.daemon.gateway) as client,
    ):
        await client.post(chat(model="endless", max_tokens=2000, stream=True))
        await client.read_until(b'"content":"', 20)
        both.engine.process.kill()
        await client.read_until(b"\r\n0\r\n\r\n")
        assert b"[DONE]" not in client.received
        last = events(client.received.decode())[-1]
        assert set(last) == {"error"}
        budget = await both.daemon.settled_budget()
        assert client.received.count(b'"content":"') <= budget["spent"]  # type: ignore[operator]

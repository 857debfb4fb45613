"""One request at a time through cortexd to a real llama-server, and what the engine says it cost.

The engine's own counters are a witness that shares no code with cortexd and believes none of its
bodies: whatever is sent, the ledger has to be at or above them.
"""

import json
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import trio

from tests.engines.metered import Metered, metered
from tests.engines.real_engine import Meter
from tests.engines.smuggled import SMUGGLED
from tests.support.daemon_process import chat
from tests.support.raw_client import RawClient, raw_client

pytestmark = pytest.mark.slow

PATIENCE_SECONDS = 30
QUICK_POLLING = {"interval_seconds": 0.2, "timeout_seconds": 0.3, "misses_to_unhealthy": 2}
LONG_TOKENS = 16_000
"""An answer that takes the engine a minute or more, unless it is told to stop."""
TOKEN_A = str(ord("a") - ord("!"))
TOKEN_HALF_A_LETTER = "226"
"""A byte that begins a letter of three; llama-server waits for the rest before it shows it."""


def events(body: str) -> list[Mapping[str, object]]:
    """The JSON objects of an event stream, without its [DONE]."""
    data = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


def text_of(chunks: Sequence[Mapping[str, object]]) -> str:
    """What the chunks of a stream with one choice say together."""
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]  # type: ignore[attr-defined]
    return "".join(delta.get("content") or "" for delta in deltas)


async def test_a_plain_answer_costs_what_the_engine_counted(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with metered(llama_server_program, [tiny_models / "stops.gguf"], tmp_path) as both:
        lengths = set()
        for _ in range(5):
            answer = await both.ask(model="stops", max_tokens=200)
            assert answer.status_code == 200, answer.text
            usage = answer.json()["usage"]
            charged, counted = await both.costs()
            assert charged == usage["total_tokens"] == counted.tokens
            assert answer.json()["choices"][0]["finish_reason"] == "stop"
            lengths.add(usage["completion_tokens"])
        assert len(lengths) > 1, "a real model's answers differ in length"


async def test_a_streamed_answer_costs_what_the_engine_counted(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with metered(llama_server_program, [tiny_models / "stops.gguf"], tmp_path) as both:
        for include_usage in (True, False):
            options = {"stream_options": {"include_usage": True}} if include_usage else {}
            answer = await both.ask(model="stops", max_tokens=200, stream=True, **options)
            charged, counted = await both.costs()
            assert answer.status_code == 200, answer.text
            assert answer.text.endswith("data: [DONE]\n\n")
            chunks = events(answer.text)
            assert chunks, "whether it says anything before it stops is up to the dice"
            assert charged == counted.tokens
            reported = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
            totals = [usage["total_tokens"] for usage in reported]  # type: ignore[index]
            assert totals == ([charged] if include_usage else [])


async def test_the_model_is_listed_with_its_context_which_is_the_limit_where_none_is_asked_for(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with metered(
        llama_server_program, [tiny_models / "endless.gguf"], tmp_path, slot_tokens=1024
    ) as both:
        (model,) = (await both.client.get("/v1/models")).json()["data"]
        assert (model["id"], model["loaded"]) == ("endless", True)
        assert model["limit"] == {"context": 1024}
        answer = await both.ask(model="endless", max_tokens=None)
        charged, counted = await both.costs()
        assert answer.json()["choices"][0]["finish_reason"] == "length"
        assert charged == answer.json()["usage"]["total_tokens"] == counted.tokens <= 1024


@pytest.mark.parametrize("stream", ["false", "true"])
async def test_no_body_makes_the_engine_do_more_than_was_reserved(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, stream: str
) -> None:
    """Each of these fields, let through, makes one engine or another generate more."""
    async with metered(llama_server_program, [tiny_models / "endless.gguf"], tmp_path) as both:
        for smuggled, generated_max in SMUGGLED:
            body = (
                '{"model": "endless", "messages": [{"role": "user", "content": "hi"}],'
                f' "max_tokens": 8, "stream": {stream}, {smuggled}}}'
            )
            answer = await both.client.post("/v1/chat/completions", content=body)
            charged, counted = await both.costs()
            assert answer.status_code == 200, (smuggled, answer.text)
            assert 0 < counted.generated <= generated_max, smuggled
            assert counted.tokens <= charged, smuggled


async def test_a_limit_that_engines_read_differently_never_gets_there(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with metered(llama_server_program, [tiny_models / "endless.gguf"], tmp_path) as both:
        for limit in ("0", "-1", "true", '"8"', "8.9", "1e3", "[8]", str(2**40)):
            body = (
                '{"model": "endless", "messages": [{"role": "user", "content": "hi"}],'
                f' "max_tokens": {limit}}}'
            )
            answer = await both.client.post("/v1/chat/completions", content=body)
            assert answer.status_code == 400, (limit, answer.text)
            assert answer.json()["error"]["param"] == "max_tokens"
        assert await both.costs() == (0, Meter())


PROMPTS = {
    "bytes that are a token each": "zq9 " * 100,
    "markers of the template": "<|im_start|><|im_end|>" * 20,
    "no letter is said twice": "".join(map(chr, range(32, 260))),
    "letters that come apart": "e\u0301\u1ea5\ufb03" * 40,
    "escapes": '\\"\n\t\x00\x7f' * 40,
    "nothing": "",
}


async def test_no_prompt_is_more_than_was_reserved_for_it(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    """In a vocabulary as small as this model's nearly every byte is a token of its own."""
    async with metered(llama_server_program, [tiny_models / "endless.gguf"], tmp_path) as both:
        for name, content in PROMPTS.items():
            messages = [{"role": "user", "content": content}] * 3
            answer = await both.ask(model="endless", max_tokens=1, messages=messages)
            charged, counted = await both.costs()
            assert answer.status_code == 200, (name, answer.text)
            assert charged == counted.tokens  # and no overrun, which `metered` looks for


@pytest.mark.parametrize("stream", [True, False])
async def test_the_engine_stops_for_a_client_that_leaves_and_the_client_pays_no_less(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, stream: bool
) -> None:
    async with metered(
        llama_server_program, [tiny_models / "endless.gguf"], tmp_path, slot_tokens=2 * LONG_TOKENS
    ) as both:
        async with raw_client(both.daemon.gateway) as client:
            await client.post(chat(model="endless", max_tokens=LONG_TOKENS, stream=stream))
            await both.engine.begins()
            if stream:
                await client.read_until(b'"content":"', 7)
        charged, counted = await both.costs()
        assert counted.generated < LONG_TOKENS, "the engine went on without a client"
        assert counted.tokens <= charged


async def test_a_client_that_leaves_while_it_waits_for_its_turn_is_not_served(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with (
        metered(
            llama_server_program,
            [tiny_models / "endless.gguf"],
            tmp_path,
            slots=1,
            slot_tokens=2 * LONG_TOKENS,
        ) as both,
        raw_client(both.daemon.gateway) as first,
    ):
        await first.post(chat(model="endless", max_tokens=LONG_TOKENS, stream=True))
        await first.read_until(b'"content":"')
        async with raw_client(both.daemon.gateway) as second:
            await second.post(chat(model="endless", max_tokens=LONG_TOKENS, stream=True))
            await both.engine.meter_when(lambda meter: meter.waiting == 1)
        await first.stream.aclose()
        charged, counted = await both.costs()
        assert counted.generated < LONG_TOKENS
        assert counted.tokens <= charged


async def test_a_client_that_reads_nothing_pays_for_what_the_engine_did(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    """An event of hundreds of bytes for each byte of text: what is on the way is never seen."""
    async with metered(llama_server_program, [tiny_models / "endless.gguf"], tmp_path) as both:
        body = chat(
            model="endless",
            max_tokens=1900,
            stream=True,
            logit_bias={TOKEN_A: 100},
        )
        async with await _narrow_client(both) as client:
            await RawClient(client).post(body)
            await both.engine.begins()
            await both.engine.meter_when_idle()
        charged, counted = await both.costs()
        assert counted.generated == 1900
        assert counted.tokens <= charged


async def _narrow_client(both: Metered) -> trio.SocketStream:
    """A connection that takes in a few kilobytes and no more."""
    narrow = trio.socket.socket()
    narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    host, port = both.daemon.gateway.removeprefix("http://").split(":")
    await narrow.connect((host, int(port)))
    return trio.SocketStream(narrow)


HIDDEN: dict[str, dict[str, object]] = {
    "a stop text that is always about to come": {
        "logit_bias": {TOKEN_A: 100},
        "stop": ["a" * 3000 + "b"],
    },
    "the first byte of a letter, for ever": {"logit_bias": {TOKEN_HALF_A_LETTER: 100}},
}


@pytest.mark.parametrize("fields", HIDDEN.values(), ids=HIDDEN)
async def test_tokens_that_the_engine_keeps_to_itself_are_paid_for(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path, fields: Mapping[str, object]
) -> None:
    """Engines hold text back while it may yet change; what was seen says nothing about it."""
    body = {**chat(model="endless", max_tokens=LONG_TOKENS, stream=True), **fields}
    async with metered(
        llama_server_program, [tiny_models / "endless.gguf"], tmp_path, slot_tokens=2 * LONG_TOKENS
    ) as both:
        async with raw_client(both.daemon.gateway) as client:
            await client.post(body)
            await both.engine.meter_when(lambda meter: meter.steps >= 300)
        charged, counted = await both.costs()
        assert 300 <= counted.generated < LONG_TOKENS
        assert counted.tokens <= charged


async def test_an_engine_that_hangs_is_unhealthy_until_it_answers_again(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with metered(
        llama_server_program, [tiny_models / "stops.gguf"], tmp_path, polling=QUICK_POLLING
    ) as both:

        async def healthy_nodes_become(count: int) -> None:
            with trio.fail_after(PATIENCE_SECONDS):
                while (await both.client.get("/health")).json()["nodes"]["healthy"] != count:
                    pass

        await healthy_nodes_become(1)
        both.engine.process.send_signal(signal.SIGSTOP)
        await healthy_nodes_become(0)
        refused = await both.ask(model="stops")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "no_neuron")
        assert (await both.spending()).spent == 0
        both.engine.process.send_signal(signal.SIGCONT)
        await healthy_nodes_become(1)
        assert (await both.ask(model="stops")).status_code == 200


async def test_an_engine_that_dies_in_a_stream_ends_it_with_an_error_and_is_charged(
    llama_server_program: Path, tiny_models: Path, tmp_path: Path
) -> None:
    async with (
        metered(llama_server_program, [tiny_models / "endless.gguf"], tmp_path) as both,
        raw_client(both.daemon.gateway) as client,
    ):
        await client.post(chat(model="endless", max_tokens=1900, stream=True))
        await client.read_until(b'"content":"', 20)
        both.engine.process.kill()
        await client.read_until(b"\r\n0\r\n\r\n")
        assert b"[DONE]" not in client.received
        assert set(events(client.received.decode())[-1]) == {"error"}
        await both.daemon.settled_budget()
        assert client.received.count(b'"content":"') <= (await both.spending()).spent

"""The faults that real engines were seen to have, each played by a server on a real socket.

What the client sees, and what is charged: never nothing for work that may have been done.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from cortexd.config.schema import NeuronKind
from cortexd.gateway.relay import Clocks
from tests.fleet.scripted import CHUNKED_HEAD, Peer, ok, scripted
from tests.support.core import Core, RecordingClient, core

HI = [{"role": "user", "content": "hi"}]
LIMIT = 8
MODELS = ok(b'{"object":"list","data":[{"id":"m","max_model_len":4096}]}')
EVENTS = CHUNKED_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-type: text/event-stream\r\n\r\n")
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}
DONE = b"data: [DONE]\n\n"
PROMPT_BOUND = len(json.dumps(HI, separators=(",", ":")))
RESERVED = PROMPT_BOUND + LIMIT


def event(delta: object, finish: str | None = None, **more: object) -> bytes:
    """One chunk of a chat as an event."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {"id": "1", "object": "chat.completion.chunk", "model": "m", "choices": [choice]}
    said = json.dumps({**body, **more}, separators=(",", ":"))
    return b"data: " + said.encode() + b"\n\n"


def chunked(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


HELLO = event({"role": "assistant", "content": "he"}) + event({"content": "llo"})
END = event({}, "stop")
LAST = b"0\r\n\r\n"


class Engine:
    """Answers a chat with raw bytes. `sent`: the bodies that came. `then`: what it does after."""

    def __init__(self, answer: bytes, then: str = "waits") -> None:
        self.answer = answer
        self.then = then
        self.sent: list[Mapping[str, object]] = []
        self.left = trio.Event()

    async def script(self, peer: Peer) -> None:
        """Serve one connection."""
        while request := await peer.request():
            if request.startswith(b"GET"):
                await peer.send(MODELS)
                continue
            self.sent.append(json.loads(request.partition(b"\r\n\r\n")[2]))
            await peer.send(self.answer)
            if self.then == "closes":
                return
            if self.then == "resets":
                await peer.reset()
                return
            await peer.hung_up()
            self.left.set()


@asynccontextmanager
async def before(
    engine: Engine, directory: Path, kind: NeuronKind = "openai", *, silence: float = 20
) -> AsyncIterator[Core]:
    """A gateway in front of one engine."""
    clocks = Clocks(first_byte_seconds=silence, between_bytes_seconds=silence)
    async with (
        scripted(engine.script, within_seconds=30) as server,
        core(directory, {"beast": server.url}, kind=kind, clocks=clocks) as it,
    ):
        yield it


async def asked(it: Core, **fields: object) -> RecordingClient:
    """One chat, plain unless it says otherwise."""
    return await it.ask({"model": "m", "messages": HI, "max_tokens": LIMIT, **fields})


def content(client: RecordingClient) -> str:
    """The text of a plain answer."""
    answer = json.loads(client.body)
    assert answer["object"] == "chat.completion"
    message: dict[str, str] = answer["choices"][0]["message"]
    return message["content"]


async def test_an_engine_that_may_go_on_without_its_client_is_asked_to_stream(
    tmp_path: Path,
) -> None:
    usage = event({}, usage=USAGE).replace(b'"choices":[{', b'"choices":[],"x":[{')
    engine = Engine(EVENTS + chunked(HELLO + END + usage + DONE) + LAST)
    async with before(engine, tmp_path) as it:
        client = await asked(it)
        assert (client.status, content(client)) == (200, "hello")
        assert json.loads(client.body)["usage"] == USAGE
        assert (await it.standing()).spent == 11
    assert engine.sent[0]["stream"] is True
    assert engine.sent[0]["stream_options"] == {"include_usage": True}


async def test_a_message_is_gathered_from_a_chat(tmp_path: Path) -> None:
    engine = Engine(EVENTS + chunked(HELLO + event({}, "stop", usage=USAGE) + DONE) + LAST)
    async with before(engine, tmp_path) as it:
        body = {"model": "m", "messages": HI, "max_tokens": LIMIT}
        client = await it.ask(body, path="/v1/messages")
        message = json.loads(client.body)
        assert (client.status, message["type"]) == (200, "message")
        assert message["content"] == [{"type": "text", "text": "hello"}]
        assert (await it.standing()).spent == 11
    assert engine.sent[0]["stream"] is True


async def test_a_completion_and_a_response_are_gathered_too(tmp_path: Path) -> None:
    text: dict[str, object] = {"object": "text_completion", "model": "m", "usage": USAGE}
    text["choices"] = [{"index": 0, "text": "hello", "finish_reason": "stop"}]
    engine = Engine(EVENTS + chunked(b"data: " + json.dumps(text).encode() + b"\n\n") + LAST)
    async with before(engine, tmp_path) as it:
        client = await it.ask({"model": "m", "prompt": "hi"}, path="/v1/completions")
        assert json.loads(client.body) == text
    response: dict[str, object] = {
        "id": "r",
        "object": "response",
        "model": "m",
        "status": "completed",
    }
    response |= {"output": [], "usage": {"input_tokens": 9, "output_tokens": 2}}
    said = json.dumps({"type": "response.completed", "response": response})
    engine = Engine(EVENTS + chunked(b"data: " + said.encode() + b"\n\n") + LAST)
    async with before(engine, tmp_path / "response") as it:
        client = await it.ask({"model": "m", "input": "hi"}, path="/v1/responses")
        assert json.loads(client.body) == response
        assert (await it.standing()).spent == 11
    assert engine.sent[0]["stream"] is True


async def test_an_answer_that_holds_nothing_is_no_answer(tmp_path: Path) -> None:
    """The last event of a response may lack the response."""
    said = b'data: {"type":"response.completed","response":{"output":7}}\n\n'
    engine = Engine(EVENTS + chunked(said) + LAST)
    async with before(engine, tmp_path) as it:
        client = await it.ask({"model": "m", "input": "hi"}, path="/v1/responses")
        assert client.status == 502


async def test_a_client_that_hangs_up_on_a_plain_request_closes_that_stream(
    tmp_path: Path,
) -> None:
    engine = Engine(EVENTS + chunked(HELLO))
    async with before(engine, tmp_path) as it:
        client = RecordingClient()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                await it.ask({"model": "m", "messages": HI, "max_tokens": LIMIT}, client=client)

            nursery.start_soon(ask, name="request")
            while not engine.sent:
                await trio.lowlevel.checkpoint()
            client.hang_up()
            with trio.fail_after(20):
                await engine.left.wait()
        assert (await it.standing()).spent == RESERVED, "what was generated is not known"


async def test_an_engine_that_answers_a_stream_with_a_document_is_understood(
    tmp_path: Path,
) -> None:
    """Some servers know no streams, and say nothing of it."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}}
    answer = {"object": "chat.completion", "model": "m", "choices": [choice], "usage": USAGE}
    engine = Engine(ok(json.dumps(answer).encode(), b"content-type: application/json"))
    async with before(engine, tmp_path) as it:
        client = await asked(it)
        assert (client.status, content(client)) == (200, "hello")
        assert (await it.standing()).spent == 11


@pytest.mark.parametrize("stream", [False, True])
async def test_usage_on_the_finish_chunk_counts_and_a_missing_done_does_no_harm(
    tmp_path: Path, stream: bool
) -> None:
    engine = Engine(EVENTS + chunked(HELLO + event({}, "stop", usage=USAGE)) + LAST)
    async with before(engine, tmp_path) as it:
        client = await asked(it, stream=stream)
        assert client.status == 200
        assert (client.events()[-1] == "[DONE]") if stream else (content(client) == "hello")
        assert (await it.standing()).spent == 11


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_reports_no_usage_costs_what_was_reserved(
    tmp_path: Path, stream: bool
) -> None:
    engine = Engine(EVENTS + chunked(HELLO + END + DONE) + LAST)
    async with before(engine, tmp_path) as it:
        assert (await asked(it, stream=stream)).status == 200
        assert (await it.standing()).spent == RESERVED


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_does_not_keep_to_its_limit_is_left_there(
    tmp_path: Path, stream: bool
) -> None:
    """Which also holds for a plain request, since it is no plain request to the engine."""
    engine = Engine(EVENTS + chunked(event({"content": "x"})) * (5 * LIMIT))
    async with before(engine, tmp_path) as it:
        client = await asked(it, stream=stream)
        assert client.status == 200
        if stream:
            assert client.tokens == LIMIT
        else:
            assert content(client) == "x" * LIMIT
            assert json.loads(client.body)["choices"][0]["finish_reason"] == "length"
        with trio.fail_after(20):
            await engine.left.wait()
        assert (await it.standing()).spent == RESERVED


BROKEN = {
    "a router that unloads in the middle": chunked(b"proxy error: Failed to read") + LAST,
    "an end without a finish": LAST,
    "an error before [DONE]": chunked(b'data: {"error":{"message":"x","code":500}}\n\n' + DONE),
    "a flat error": chunked(b'data: {"object":"error","message":"x","code":500}\n\n'),
    "an empty chunk and no more": chunked(b'data: {"choices":[]}\n\n') + LAST,
}


@pytest.mark.parametrize("rest", BROKEN.values(), ids=BROKEN.keys())
@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_breaks_is_never_taken_for_a_whole_one(
    tmp_path: Path, rest: bytes, stream: bool
) -> None:
    engine = Engine(EVENTS + chunked(HELLO) + rest)
    async with before(engine, tmp_path) as it:
        client = await asked(it, stream=stream)
        if stream:
            assert "error" in json.loads(client.events()[-1])
        else:
            assert client.status == 502
        assert (await it.standing()).spent == RESERVED


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_falls_silent_in_the_middle_is_given_up(
    tmp_path: Path, stream: bool
) -> None:
    """llama-server does when it is told to end: it stops, and leaves the connection open."""
    engine = Engine(EVENTS + chunked(HELLO))
    async with before(engine, tmp_path, silence=0.2) as it:
        client = await asked(it, stream=stream)
        assert client.status == (200 if stream else 504)
        assert (await it.standing()).spent == RESERVED
        assert it.told[0].clock == "between_bytes"


async def test_an_engine_that_is_killed_after_its_last_choice_has_answered(
    tmp_path: Path,
) -> None:
    engine = Engine(EVENTS + chunked(HELLO + event({}, "stop", usage=USAGE)), then="closes")
    async with before(engine, tmp_path) as it:
        client = await asked(it)
        assert (client.status, content(client)) == (200, "hello")
        assert (await it.standing()).spent == 11


async def test_a_connection_that_is_reset_after_an_error_breaks_no_later_request(
    tmp_path: Path,
) -> None:
    failing = b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops"
    engine = Engine(failing, then="resets")
    async with before(engine, tmp_path) as it:
        for _ in range(3):
            assert (await asked(it)).status == 502
        assert (await it.standing()).spent == 0, "a stream that never began has made nothing"
    assert len(engine.sent) == 3


async def test_a_real_kind_whose_plain_answers_stop_is_asked_for_them(tmp_path: Path) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "hello"}}
    answer = {"object": "chat.completion", "model": "m", "choices": [choice], "usage": USAGE}
    engine = Engine(ok(json.dumps(answer).encode()))
    async with before(engine, tmp_path, "llama-server") as it:
        assert content(await asked(it)) == "hello"
    assert engine.sent[0]["stream"] is False


TOO_LONG = b'{"error":{"code":400,"message":"request exceeds the available context size"}}'
NOT_LOADED = b'{"error":{"code":400,"message":"model is not loaded"}}'


def refusing(status: int, body: bytes) -> Engine:
    """One that answers an error, whatever it was asked."""
    head = b"HTTP/1.1 %d Nope\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return Engine(head % (status, len(body)) + body)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", [400, 413, 422, 500])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": ["one", "two"], "max_tokens": LIMIT}),
        ("/v1/embeddings", {"input": ["one", "two"]}),
    ],
)
async def test_an_engine_that_refuses_one_of_several_prompts_may_have_worked_on_the_others(
    tmp_path: Path, path: str, body: dict[str, object], status: int, stream: bool
) -> None:
    """llama-server makes whole answers to all the others first, and shows nobody."""
    streamed = {"stream": True} if stream and path == "/v1/completions" else {}
    async with before(refusing(status, TOO_LONG), tmp_path, "llama-server") as it:
        await it.ask({"model": "m", **body, **streamed}, path=path)
        assert (await it.standing()).spent >= len("onetwo")
        assert (await it.standing()).reserved == 0


@pytest.mark.parametrize(
    ("status", "said"), [(400, NOT_LOADED), (404, b""), (429, b""), (503, b""), (401, b"")]
)
async def test_an_error_that_is_about_no_prompt_is_free_however_many_there_are(
    tmp_path: Path, status: int, said: bytes
) -> None:
    async with before(refusing(status, said), tmp_path, "llama-router") as it:
        body = {"model": "m", "prompt": ["one", "two"], "max_tokens": LIMIT}
        client = await it.ask(body, path="/v1/completions")
        assert client.status != 200
        assert (await it.standing()).spent == 0


async def test_an_error_about_the_only_prompt_is_free(tmp_path: Path) -> None:
    async with before(refusing(400, TOO_LONG), tmp_path, "llama-server") as it:
        body = {"model": "m", "prompt": ["one"], "max_tokens": LIMIT}
        assert (await it.ask(body, path="/v1/completions")).status == 400
        assert (await it.standing()).spent == 0

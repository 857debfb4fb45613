"""Chat with a well-behaved simulated neuron: shapes, counts and limits of the neuron protocol."""

import base64
import struct

import httpx
import msgspec
import pytest
import trio

from cortexd.demo.admission import AdmissionLimits
from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from tests.demo.asking import MODEL, ask, call, deltas, question, raw_client, stream
from tests.support.fake_neuron import fake_neuron, running, turned


async def test_a_stream_is_role_one_chunk_per_token_finish_usage_done() -> None:
    async with fake_neuron(reply_tokens=7) as neuron:
        chunks = await stream(neuron, question())

    role, *pieces, finish, usage, done = chunks
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(pieces) == len(deltas(pieces)) == 7
    assert finish["choices"][0] == {
        "index": 0,
        "delta": {},
        "logprobs": None,
        "finish_reason": "stop",
    }
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 7
    assert usage["usage"]["total_tokens"] == 7 + usage["usage"]["prompt_tokens"]
    assert done == "[DONE]"
    assert {chunk["id"] for chunk in chunks[:-1]} == {"chatcmpl-sim-1"}
    assert {chunk["object"] for chunk in chunks[:-1]} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in chunks[:-1]} == {MODEL}
    assert all(isinstance(chunk["created"], int) for chunk in chunks[:-1])


async def test_a_plain_reply_says_the_same_words_as_the_stream() -> None:
    async with fake_neuron() as neuron:
        streamed = "".join(deltas(await stream(neuron, question())))
        plain = (await ask(neuron, question())).json()

    assert plain["object"] == "chat.completion"
    assert plain["choices"][0]["message"] == {"role": "assistant", "content": streamed}
    assert plain["choices"][0]["finish_reason"] == "stop"
    assert 10 <= plain["usage"]["completion_tokens"] <= 60
    assert plain["usage"]["helexa_timing"]["prefill_tokens"] == plain["usage"]["prompt_tokens"]


async def test_different_questions_get_different_answers_of_different_length() -> None:
    async with fake_neuron() as neuron:
        replies = [(await ask(neuron, question(str(n)))).json() for n in range(8)]

    assert len({reply["choices"][0]["message"]["content"] for reply in replies}) == 8
    assert len({reply["usage"]["completion_tokens"] for reply in replies}) > 3


@pytest.mark.parametrize("spelling", ["max_tokens", "max_completion_tokens"])
async def test_the_limit_is_obeyed_and_told(spelling: str) -> None:
    async with fake_neuron() as neuron:
        reply = (await ask(neuron, question() | {spelling: 3})).json()

    assert reply["usage"]["completion_tokens"] == 3
    assert reply["choices"][0]["finish_reason"] == "length"


async def test_what_was_served_is_counted_by_key_and_per_request() -> None:
    async with fake_neuron(fixed_usage=(5, 10)) as neuron:
        named = {"x_helexa_account_id": "acct", "x_helexa_key_id": "key-a"}
        usage = (await ask(neuron, question(), **named)).json()["usage"]
        await stream(neuron, question(max_tokens=4))
        served = neuron.counters.served

    assert (usage["prompt_tokens"], usage["completion_tokens"]) == (5, 10)
    assert served.by_key["key-a"].total == 15
    assert served.by_key["anonymous"].total == 9
    assert [request.total for request in served.requests] == [15, 9]
    assert served.total == 24


async def test_headers_bodies_and_hits_are_kept() -> None:
    async with fake_neuron() as neuron:
        await ask(neuron, question("hello"), x_request_id="r1")
        await call(neuron, "GET", "/models")

    assert neuron.chat_hits == 1
    assert neuron.counters.hits == {"/v1/chat/completions": 1, "/models": 1}
    assert neuron.seen[0].header(b"x-request-id") == "r1"
    assert msgspec.json.decode(neuron.seen[0].body)["messages"][0]["content"] == "hello"
    assert neuron.in_flight == 0


async def test_thinking_comes_only_when_asked_for_and_is_paid_for() -> None:
    neuron = SimulatedNeuron(models=[SimulatedModel(MODEL, reasoning=True)])
    neuron.switches.reply_tokens = 4
    asked = question(chat_template_kwargs={"enable_thinking": True})
    async with running(neuron):
        without = (await ask(neuron, question())).json()
        beside = (await ask(neuron, asked)).json()
        inline = (await ask(neuron, question(), x_include_thinking="true")).json()
        streamed = await stream(neuron, asked)

    assert "reasoning_content" not in without["choices"][0]["message"]
    thoughts = beside["choices"][0]["message"]["reasoning_content"]
    assert beside["usage"]["completion_tokens"] == 4 + len(thoughts.split(" "))
    text = inline["choices"][0]["message"]["content"]
    assert text.startswith(f"<think>{thoughts.split(' ')[0]}")
    assert "</think>" in text
    pieces = [chunk["choices"][0]["delta"] for chunk in streamed[:-2]]
    assert "".join(piece.get("reasoning_content", "") for piece in pieces) == thoughts


async def test_thoughts_and_answer_never_share_a_chunk() -> None:
    neuron = SimulatedNeuron(
        models=[SimulatedModel(MODEL, reasoning=True)],
        switches=turned(reply_tokens=5, tokens_per_chunk=100),
    )
    async with running(neuron):
        chunks = await stream(neuron, question(chat_template_kwargs={"enable_thinking": True}))
        inline = await stream(neuron, question(), x_include_thinking="yes")

    assert [list(chunk["choices"][0]["delta"]) for chunk in chunks[1:3]] == [
        ["reasoning_content"],
        ["content"],
    ]
    assert "".join(deltas(inline)).count("think>") == 2


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (question() | {"model": "nobody/knows"}, 404, "model_not_found"),
        (question("a b " * 40), 400, "context_length_exceeded"),
        (question() | {"model": "sim/vectors"}, 422, "wrong_modality"),
        ({"model": MODEL}, 422, "invalid_request_body"),
        (
            question(
                messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]
            ),
            400,
            "vision_unsupported",
        ),
    ],
)
async def test_a_request_that_cannot_be_served_is_refused(
    body: dict[str, object], status: int, code: str
) -> None:
    models = [
        SimulatedModel(MODEL, context=64),
        SimulatedModel("sim/vectors", embedding_dimensions=8),
    ]
    async with running(SimulatedNeuron(models=models)) as neuron:
        response = await ask(neuron, body)

    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert neuron.counters.served.total == 0


async def test_the_context_limits_an_answer() -> None:
    models = [SimulatedModel(MODEL, context=24)]
    async with running(SimulatedNeuron(models=models, switches=turned(reply_tokens=50))) as neuron:
        usage = (await ask(neuron, question())).json()["usage"]

    assert usage["total_tokens"] == 24


@pytest.mark.parametrize(("status", "code"), [("recovering", 503), ("loading", 404)])
async def test_a_model_that_is_not_ready_is_refused(status: str, code: int) -> None:
    async with fake_neuron() as neuron:
        neuron.machine.rack.resident[MODEL].status = status

        assert (await ask(neuron, question())).status_code == code


async def test_embeddings_are_unit_vectors_as_floats_or_base64() -> None:
    models = [SimulatedModel("sim/vectors", embedding_dimensions=8)]
    async with running(SimulatedNeuron(models=models)) as neuron:
        body = {"model": "sim/vectors", "input": ["one", "two words"]}
        floats = (await call(neuron, "POST", "/v1/embeddings", body)).json()
        coded = (
            await call(neuron, "POST", "/v1/embeddings", body | {"encoding_format": "base64"})
        ).json()
        short = (await call(neuron, "POST", "/v1/embeddings", body | {"dimensions": 2})).json()

    assert [item["index"] for item in floats["data"]] == [0, 1]
    assert floats["usage"] == {"prompt_tokens": 5, "total_tokens": 5}
    first = floats["data"][0]["embedding"]
    unpacked = struct.unpack("<8f", base64.b64decode(coded["data"][0]["embedding"]))
    assert unpacked == pytest.approx(first, abs=1e-6)
    assert len(short["data"][0]["embedding"]) == 2
    assert neuron.counters.served.total == 15


async def test_the_line_admits_in_order_and_turns_the_rest_away() -> None:
    limits = AdmissionLimits(max_in_flight=1, max_queue_depth=1, max_wait_seconds=60)
    neuron = SimulatedNeuron(switches=turned(gated=True, reply_tokens=1), admission=limits)
    async with running(neuron), raw_client(neuron) as first, raw_client(neuron) as second:
        await first.post(question("first", stream=True))
        await first.read_until(b"assistant")
        await second.post(question("second", stream=True))
        await neuron.wait_for_hits(2)
        await trio.testing.wait_all_tasks_blocked()
        third = await ask(neuron, question("third"))
        load = (await call(neuron, "GET", "/health")).json()["models"][0]
        await neuron.allow(2)
        await first.read_until(b"[DONE]")
        await second.read_until(b"[DONE]")

    assert (third.status_code, third.headers["retry-after"]) == (503, "1")
    assert (load["in_flight"], load["queue_depth"], load["rejected_queue_full"]) == (1, 1, 1)


async def test_waiting_in_line_has_an_end() -> None:
    limits = AdmissionLimits(max_in_flight=1, max_wait_seconds=0)
    neuron = SimulatedNeuron(switches=turned(gated=True), admission=limits)
    async with running(neuron), raw_client(neuron) as first:
        await first.post(question(stream=True))
        await first.read_until(b"assistant")

        assert (await ask(neuron, question())).status_code == 503
        assert neuron.machine.lines[MODEL].rejected == {"timeout": 1}


async def test_one_principal_has_only_its_share() -> None:
    limits = AdmissionLimits(max_per_principal=1)
    neuron = SimulatedNeuron(switches=turned(gated=True, reply_tokens=1), admission=limits)
    named = {"x_helexa_account_id": "a", "x_helexa_key_id": "k"}

    async with running(neuron), trio.open_nursery() as nursery:
        nursery.start_soon(lambda: ask(neuron, question(), **named))
        await neuron.wait_for_hits(1)
        turned_away = await ask(neuron, question(), **named)
        nursery.start_soon(lambda: ask(neuron, question()))  # anonymous: no share to exceed
        await neuron.allow(2)

    assert turned_away.status_code == 429
    async with running(neuron):
        await neuron.allow(1)
        assert (await ask(neuron, question(), **named)).status_code == 200


async def test_a_neuron_comes_back_on_its_port_with_nothing_loaded() -> None:
    neuron = SimulatedNeuron()
    async with running(neuron):
        port = neuron.port
    neuron.restart(empty=True)
    with pytest.raises(httpx.ConnectError):
        await ask(neuron, question())
    async with running(neuron, port=port):
        assert neuron.url == f"http://127.0.0.1:{port}"
        assert (await call(neuron, "GET", "/models")).json() == []
        assert (await ask(neuron, question())).status_code == 404

"""Anthropic's messages through the core: translated, metered, refused and broken in its dialect."""

import datetime
import json
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from cortexd.config.schema import Catalogue, CatalogueModel, Limit
from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import BreakKind, Broken, Canned
from cortexd.gateway.relay import Clocks
from tests.support.core import RecordingClient, RollingWindow, core, key
from tests.support.fake_neuron import fake_neuron, running

PATH = "/v1/messages"
COUNT = "/v1/messages/count_tokens"
MODEL = "sim/small"


def message(**fields: object) -> dict[str, object]:
    """A request for a message."""
    asked = {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}
    return {**asked, **fields}


def kinds(client: RecordingClient) -> list[str]:
    """The types of the events of a stream, in order."""
    return [json.loads(event)["type"] for event in client.events()]


def envelope(client: RecordingClient) -> tuple[int | None, object, object]:
    """Status, type and code of a refusal, which names its request."""
    body = json.loads(client.body)
    assert (body["type"], body["request_id"]) == ("error", "req_test")
    return client.status, body["error"]["type"], body["error"]["details"]["error_code"]


async def test_a_message_is_a_chat_to_the_neuron_and_is_charged_by_its_usage(
    tmp_path: Path,
) -> None:
    async with fake_neuron(fixed_usage=(5, 10)) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        client = await it.ask(message(system="Be brief.", stop_sequences=["END"]), path=PATH)
        answer, sent = json.loads(client.body), json.loads(neuron.seen[-1].body)
        assert (answer["type"], answer["role"], answer["model"]) == ("message", "assistant", MODEL)
        assert answer["content"][0]["type"] == "text"
        assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (5, 10)
        assert neuron.seen[-1].path == "/v1/chat/completions"
        assert [each["role"] for each in sent["messages"]] == ["system", "user"]
        assert (sent["stop"], sent["max_tokens"]) == (["END"], 20)
        assert (await it.standing()).spent == 15


async def test_a_stream_is_told_as_anthropics_events_and_settled_before_its_end(
    tmp_path: Path,
) -> None:
    spent_at_the_end: list[int] = []
    async with fake_neuron(fixed_usage=(5, 3)) as neuron, core(tmp_path, {"a": neuron.url}) as it:

        class Asking(RecordingClient):
            async def finish(self, data: bytes = b"") -> None:
                assert b"message_stop" not in self.body
                spent_at_the_end.append((await it.standing()).spent)
                await super().finish(data)

        client = Asking()
        await it.ask(message(stream=True), path=PATH, client=client)
    found = kinds(client)
    assert found[:3] == ["message_start", "ping", "content_block_start"]
    assert found.count("content_block_delta") == 3
    assert found[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert spent_at_the_end == [8]


async def test_a_client_that_waits_is_told_the_beginning_and_then_pinged(tmp_path: Path) -> None:
    clocks = Clocks(first_byte_seconds=20, between_bytes_seconds=20, heartbeat_seconds=0.01)
    async with (
        fake_neuron(head_with_first_token=True, gated_prefill=True, reply_tokens=2) as neuron,
        core(tmp_path, {"a": neuron.url}, clocks=clocks) as it,
        trio.open_nursery() as nursery,
    ):
        pinged = trio.Event()

        class Waiting(RecordingClient):
            async def write(self, data: bytes) -> None:
                await super().write(data)
                if self.body.count(b"event: ping") > 2:
                    pinged.set()

        client = Waiting()

        async def ask() -> None:
            await it.ask(message(stream=True), path=PATH, client=client)

        nursery.start_soon(ask)
        with trio.fail_after(20):
            await pinged.wait()
            assert kinds(client)[0] == "message_start"
            await neuron.allow_prefill()
    found = kinds(client)
    assert found.count("message_start") == found.count("message_stop") == 1


@pytest.mark.parametrize("kind", [BreakKind.EOF, BreakKind.END, BreakKind.ERROR_FRAME])
async def test_a_broken_stream_ends_in_an_error_event_and_no_stop(
    tmp_path: Path, kind: BreakKind
) -> None:
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        neuron.switches.broken = Broken(kind, after_tokens=3)
        client = await it.ask(message(stream=True), path=PATH)
        last = json.loads(client.events()[-1])
        assert (client.status, last["type"], last["error"]["type"]) == (200, "error", "api_error")
        assert "message_stop" not in kinds(client)
        told = it.told[-1]
        assert told.charge is not None
        assert told.charge.why == "failed"
        assert told.charge.tokens >= neuron.counters.served.total


async def test_refusals_come_in_anthropics_envelope(tmp_path: Path) -> None:
    keys = [key(hard_cap=10), key("sk-rich", "key-rich", account_id="acct-rich")]
    rich: dict[str, Any] = {"authorization": "", "x_api_key": "sk-rich"}
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}, keys=keys) as it:
        before = len(neuron.seen)
        poor = await it.ask(message(), path=PATH)
        stranger = await it.ask(message(), path=PATH, authorization="Bearer sk-wrong")
        nobodys = await it.ask(message(model="absent"), path=PATH, **rich)
        garbled = await it.ask(b"{", path=PATH, **rich)
        wrong_way = await it.ask(b"", path=PATH, method="GET", **rich)
        assert len(neuron.seen) == before
    assert envelope(poor) == (429, "rate_limit_error", "insufficient_quota")
    assert poor.headers["x-should-retry"] == "false"
    assert envelope(stranger) == (401, "authentication_error", "invalid_api_key")
    assert envelope(nobodys) == (404, "not_found_error", "model_not_found")
    assert str(json.loads(nobodys.body)["error"]["message"]).startswith("model: absent")
    assert envelope(garbled) == (400, "invalid_request_error", "invalid_json")
    assert envelope(wrong_way) == (405, "invalid_request_error", "method_not_allowed")


async def test_paths_of_both_dialects_refuse_in_that_of_the_client(tmp_path: Path) -> None:
    named: dict[str, Any] = {"anthropic_version": "2023-06-01"}
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        for path in ("/v1/models/absent", "/v1/nope"):
            theirs = await it.ask(b"", path=path, method="GET", **named)
            ours = await it.ask(b"", path=path, method="GET")
            assert envelope(theirs)[:2] == (404, "not_found_error")
            assert set(json.loads(ours.body)) == {"error"}
        chat = await it.ask(b"", path="/v1/chat/completions", **named)
        assert set(json.loads(chat.body)) == {"error"}


async def test_a_prompt_that_cannot_fit_is_refused_in_the_words_that_clients_compact_on(
    tmp_path: Path,
) -> None:
    models = [SimulatedModel(MODEL, context=64)]
    catalogue = Catalogue((CatalogueModel(MODEL, limit=Limit(context=64)),))
    long = message(messages=[{"role": "user", "content": "x" * 128 * 65}])
    async with (
        running(SimulatedNeuron(models=models)) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=catalogue) as it,
    ):
        client = await it.ask(long, path=PATH)
        assert envelope(client) == (400, "invalid_request_error", "context_length_exceeded")
        told = json.loads(client.body)["error"]["message"]
        assert told == "prompt is too long: 65 tokens > 64 maximum"


async def test_tokens_are_counted_without_a_neuron_and_for_nothing(tmp_path: Path) -> None:
    """What is said is what would be reserved for the prompt."""
    tools = [{"name": "f", "input_schema": {"type": "object"}}]
    keys = [key(hard_cap=0), key("sk-rich", "key-rich", account_id="acct-rich")]
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}, keys=keys) as it:
        before = len(neuron.seen)
        body = {**message(tools=tools), "max_tokens": None}
        counted = await it.ask(body, path=COUNT)
        tokens = json.loads(counted.body)["input_tokens"]
        assert (counted.status, len(neuron.seen)) == (200, before)
        await it.ask(message(tools=tools), path=PATH, authorization="Bearer sk-rich")
        assert it.told[-1].reserved == tokens + 20
        absent = await it.ask({**body, "model": "absent"}, path=COUNT)
        assert envelope(absent) == (404, "not_found_error", "model_not_found")
        stranger = await it.ask(body, path=COUNT, authorization="Bearer sk-wrong")
        assert envelope(stranger) == (401, "authentication_error", "invalid_api_key")


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_answers_tell_of_limits_in_anthropics_headers(tmp_path: Path, stream: bool) -> None:
    async with fake_neuron(fixed_usage=(5, 3)) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        client = await it.ask(message(stream=stream), path=PATH)
        reserved = it.told[-1].reserved
    assert reserved is not None
    told = {name: text for name, text in client.headers.items() if "ratelimit" in name}
    assert told == {
        "anthropic-ratelimit-tokens-limit": "10000",
        "anthropic-ratelimit-tokens-remaining": str(10_000 - reserved),
    }


async def test_a_refusal_over_a_window_tells_when_all_of_it_is_back(tmp_path: Path) -> None:
    """As an instant, and never in the headers that Claude Code takes for a subscription's."""
    keys = [key(hard_cap=60, window=RollingWindow(seconds=60))]
    async with (
        fake_neuron(fixed_usage=(30, 10)) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=keys) as it,
    ):
        assert (await it.ask(message(max_tokens=10), path=PATH)).status == 200
        before = time.time()
        refused = await it.ask(message(max_tokens=10), path=PATH)
        openai = await it.ask(message(max_tokens=10))
    assert (refused.status, openai.status) == (429, 429)
    told = {name: text for name, text in refused.headers.items() if "ratelimit" in name}
    reset = datetime.datetime.fromisoformat(told.pop("anthropic-ratelimit-tokens-reset"))
    assert before < reset.timestamp() <= before + 62
    assert told == {
        "anthropic-ratelimit-tokens-limit": "60",
        "anthropic-ratelimit-tokens-remaining": "20",
    }
    assert not [name for name in openai.headers if name.startswith("anthropic")]
    assert openai.headers["x-ratelimit-remaining-tokens"] == "20"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_arguments_that_are_no_object_are_noted_without_their_text(
    tmp_path: Path, stream: bool
) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "look", "arguments": "secret"}}
    said = {"role": "assistant", "tool_calls": [call]}
    choice = {"index": 0, "delta" if stream else "message": said, "finish_reason": "tool_calls"}
    answer = json.dumps({"id": "x", "choices": [choice]}).encode()
    if stream:
        answer = b"data: " + answer + b"\n\ndata: [DONE]\n\n"
    kind = b"text/event-stream" if stream else b"application/json"
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        canned = Canned(200, answer, ((b"content-type", kind),))
        neuron.switches.faults["/v1/chat/completions"] = canned
        client = await it.ask(message(stream=stream), path=PATH)
        assert (client.status, it.told[-1].notes) == (200, ("bad_tool_arguments",))
        assert "secret" not in str(it.told[-1])
        neuron.switches.faults.clear()
        await it.ask(message(stream=stream), path=PATH)
        assert it.told[-1].notes == ()

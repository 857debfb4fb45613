"""Messages for neurons that speak Anthropic's dialect: as they are, and metered as ever."""

import json
from pathlib import Path

import pytest
import trio

from cortexd.config.schema import Catalogue, CatalogueModel, Limit
from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import BreakKind, Broken, Canned, UsageLie
from cortexd.gateway.relay import Clocks
from tests.support.anthropic_grammar import read_stream
from tests.support.core import RecordingClient, core, key
from tests.support.fake_neuron import fake_neuron, running, turned

PATH = "/v1/messages"
TOO_LONG = b"prompt is too long: 9 tokens > 8 maximum"
OVER_LIMIT = (
    b"input length and `max_tokens` exceed context limit: 5 + 4 > 8, decrease input length or "
    b"`max_tokens` and try again"
)
MODEL = "sim/small"
ALIAS = Catalogue((CatalogueModel(MODEL),), {"claude-small": MODEL})
QUICK = Clocks(first_byte_seconds=20, between_bytes_seconds=0.2)


def message(**fields: object) -> dict[str, object]:
    """A request for a message."""
    asked = {"model": MODEL, "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}
    return {**asked, **fields}


def kinds(client: RecordingClient) -> list[str]:
    """The types of the events of a stream, in order."""
    return [json.loads(event)["type"] for event in client.events()]


async def test_a_message_goes_as_it_is_and_costs_what_the_neuron_counted(
    tmp_path: Path,
) -> None:
    turns = [{"role": "user", "content": [{"type": "text", "text": "hi \u00e9"}]}]
    async with (
        fake_neuron(fixed_usage=(5, 10)) as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}, catalogue=ALIAS) as it,
    ):
        asked = message(
            model="claude-small",
            messages=turns,
            system="Be brief.",
            temperature=0.5,
            container="c",
            n_predict=9_999,
        )
        client = await it.ask(asked, path=PATH)
        seen = neuron.seen[-1]
        assert (seen.path, seen.header(b"anthropic-version")) == (PATH, "2023-06-01")
        assert json.loads(seen.body) == {
            "model": MODEL,
            "max_tokens": 20,
            "stream": False,
            "messages": turns,
            "system": "Be brief.",
            "temperature": 0.5,
        }
        answer = json.loads(client.body)
        assert (answer["id"], answer["model"]) == ("msg_req_test", "claude-small")
        assert answer["content"][0]["type"] == "text"
        assert (answer["usage"]["input_tokens"], answer["usage"]["output_tokens"]) == (5, 10)
        assert (await it.standing()).spent == 15
        assert it.told[-1].dropped == ("container", "n_predict")


PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
USE = {"type": "tool_use", "id": "t", "name": "f", "input": {}}


def result(*blocks: object) -> list[dict[str, object]]:
    """Turns in which a tool was used and answers with these blocks."""
    answer = {"type": "tool_result", "tool_use_id": "t", "content": list(blocks)}
    return [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [USE]},
        {"role": "user", "content": [answer]},
    ]


@pytest.mark.parametrize(
    ("turns", "path"),
    [
        (result({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}), PATH),
        (result({"type": "text", "text": "x", "junk": "y" * 100}), "/v1/chat/completions"),
        (result(PICTURE), "/v1/chat/completions"),
        (result({"type": "tool_reference", "tool_name": "f"}), "/v1/chat/completions"),
        ([{"role": "user", "content": "hi", "junk": "y" * 100}], "/v1/chat/completions"),
    ],
)
async def test_a_message_that_an_engine_may_read_more_into_goes_as_the_chat_it_is_bounded_as(
    tmp_path: Path, turns: list[dict[str, object]], path: str
) -> None:
    sized = Catalogue((CatalogueModel(MODEL, image_tokens_max=50),))
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}, catalogue=sized) as it,
    ):
        await it.ask(message(messages=turns), path=PATH)
        assert [seen.path for seen in neuron.seen if seen.method == "POST"] == [path]


NESTED: dict[str, dict[str, object]] = {
    "messages": {"messages": [{"role": "user", "content": "hi", "x": "nested"}]},
    "metadata": {"metadata": {"x": "nested"}},
    "tools": {"tools": [{"name": "f", "input_schema": {"x": "nested"}}]},
}


@pytest.mark.parametrize("where", NESTED)
async def test_a_message_that_is_nested_too_deeply_is_refused_and_never_a_bug(
    tmp_path: Path, where: str
) -> None:
    """Its values are decoded again when it is sent, with less room on the stack."""
    statuses = set()
    async with (
        fake_neuron(fixed_usage=(5, 10)) as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}, keys=[key(hard_cap=10**6)]) as it,
    ):
        for depth in range(820, 980):
            nested = b"[" * depth + b"]" * depth
            asked = json.dumps(message(**NESTED[where])).encode()
            client = await it.ask(asked.replace(b'"nested"', nested), path=PATH)
            statuses.add(client.status)
        assert statuses == {200, 400}
        assert (await it.standing()).reserved == 0


async def test_a_neuron_is_told_what_was_reserved_and_no_more(tmp_path: Path) -> None:
    sized = Catalogue((CatalogueModel(MODEL, limit=Limit(output=5)),))
    async with (
        fake_neuron(ignore_max_tokens=False, reply_tokens=50) as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}, catalogue=sized) as it,
    ):
        client = await it.ask(message(), path=PATH)
        assert json.loads(neuron.seen[-1].body)["max_tokens"] == 5
        assert json.loads(client.body)["stop_reason"] == "max_tokens"


async def test_chats_go_on_as_chats_there(tmp_path: Path) -> None:
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}) as it,
    ):
        assert (await it.ask(message())).status == 200
        assert neuron.seen[-1].path == "/v1/chat/completions"


async def test_an_engine_that_only_stops_while_it_streams_is_asked_for_a_chat_or_a_stream(
    tmp_path: Path,
) -> None:
    async with (
        fake_neuron(fixed_usage=(5, 3)) as neuron,
        core(tmp_path, {"a": neuron.url}, kind="openai", anthropic={"a"}) as it,
    ):
        client = await it.ask(message(), path=PATH)
        assert json.loads(client.body)["type"] == "message"
        assert neuron.seen[-1].path == "/v1/chat/completions"
        assert json.loads(neuron.seen[-1].body)["stream"] is True
        read_stream((await it.ask(message(stream=True), path=PATH)).body)
        assert neuron.seen[-1].path == PATH
        assert (await it.standing()).spent == 16


async def test_turns_go_byte_for_byte_but_for_lines_that_change_with_every_request(
    tmp_path: Path,
) -> None:
    turns = b'[ {"role":"user","content":"\\u0068i \xf0\x9f\x98\x80"  } ]'
    billing = "x-anthropic-billing-header: cch=1;\nBe brief."
    body = b'{"model":"sim/small","max_tokens":9,"messages":%b,"system":%b}'
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}) as it,
    ):
        system = [{"type": "text", "text": billing.split("\n")[0]}, {"type": "text", "text": "B."}]
        await it.ask(body % (turns, json.dumps(system).encode()), path=PATH)
        assert b'"messages":' + turns in neuron.seen[-1].body
        sent = json.loads(neuron.seen[-1].body)
        assert sent["system"] == [{"type": "text", "text": "B."}]
        late = [{"role": "user", "content": "a"}, {"role": "system", "content": billing}]
        await it.ask(message(messages=late, system=billing.split("\n")[0]), path=PATH)
        sent = json.loads(neuron.seen[-1].body)
        assert sent["messages"][1] == {"role": "system", "content": "Be brief."}
        assert "system" not in sent


async def test_of_tools_only_what_describes_them_goes_on(tmp_path: Path) -> None:
    tool = {"name": "f", "description": "d", "input_schema": {"type": "object"}}
    odd = {**tool, "type": "custom", "cache_control": {"type": "ephemeral"}, "loop": 9}
    finder = {"type": "tool_search_tool_regex_20251119", "name": "tool_search_tool_regex"}
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}) as it,
    ):
        asked = message(tools=[odd, finder], tool_choice={"type": "any"})
        assert (await it.ask(asked, path=PATH)).status == 200
        sent = json.loads(neuron.seen[-1].body)
        assert (sent["tools"], sent["tool_choice"]) == ([tool], {"type": "any"})
        hits = neuron.counters.hits[PATH]
        hosted = await it.ask(message(tools=[{"type": "web_search_20250305"}]), path=PATH)
        assert (hosted.status, neuron.counters.hits[PATH]) == (400, hits)


async def test_what_only_anthropics_servers_read_goes_as_a_chat_without_it(
    tmp_path: Path,
) -> None:
    secret = {"type": "redacted_thinking", "data": "x"}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [secret, {"type": "text", "text": "b"}]},
        {"role": "user", "content": "c"},
    ]
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}) as it,
    ):
        assert (await it.ask(message(messages=turns), path=PATH)).status == 200
        assert neuron.seen[-1].path == "/v1/chat/completions"


async def test_a_stream_is_passed_on_and_settled_before_its_end(tmp_path: Path) -> None:
    spent_at_the_end: list[int] = []
    async with (
        fake_neuron(fixed_usage=(5, 3)) as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}, catalogue=ALIAS) as it,
    ):

        class Asking(RecordingClient):
            async def finish(self, data: bytes = b"") -> None:
                assert b"message_stop" not in self.body
                assert b'stop_reason":"' not in self.body
                spent_at_the_end.append((await it.standing()).spent)
                await super().finish(data)

        client = Asking()
        await it.ask(message(stream=True, model="claude-small"), path=PATH, client=client)
    told = read_stream(client.body)
    assert told.start["model"] == "claude-small"
    assert told.start["id"] == "msg_req_test"
    assert told.usage["output_tokens"] == 3
    assert spent_at_the_end == [8]


async def test_one_model_behind_mixed_neurons_is_asked_in_the_words_of_each(
    tmp_path: Path,
) -> None:
    """The same request fails over from one kind to the other, and pays once."""
    native, plain = SimulatedNeuron("a"), SimulatedNeuron("b")
    for neuron in (native, plain):
        neuron.switches.fixed_usage = (5, 10)
    async with (
        running(native),
        running(plain),
        core(tmp_path, {"a": native.url, "b": plain.url}, anthropic={"a"}) as it,
    ):
        spent = 0
        for busy, path in ((native, PATH), (plain, "/v1/chat/completions")):
            busy.switches.refuse(503, path=path)
            for stream in (False, True):
                client = await it.ask(message(stream=stream), path=PATH)
                assert client.status == 200
                if stream:
                    read_stream(client.body)
                else:
                    assert json.loads(client.body)["type"] == "message"
                spent += 15
                assert (await it.standing()).spent == spent
            busy.switches.faults.clear()
        assert native.counters.hits["/v1/chat/completions"] == plain.counters.hits[PATH] == 0
        assert native.counters.hits[PATH] >= 2
        assert plain.counters.hits["/v1/chat/completions"] >= 2


async def test_who_was_told_the_beginning_while_waiting_is_not_told_another(
    tmp_path: Path,
) -> None:
    clocks = Clocks(first_byte_seconds=20, between_bytes_seconds=20, heartbeat_seconds=0.01)
    async with (
        fake_neuron(head_with_first_token=True, gated_prefill=True, reply_tokens=2) as neuron,
        core(tmp_path, {"a": neuron.url}, clocks=clocks, anthropic={"a"}) as it,
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
            await neuron.allow_prefill()
            await client.wait_for_end()
    assert kinds(client).count("message_start") == 1
    read_stream(client.body)


async def test_who_waited_for_the_model_is_told_one_beginning_whoever_then_serves(
    tmp_path: Path,
) -> None:
    clocks = Clocks(first_byte_seconds=20, between_bytes_seconds=20, heartbeat_seconds=0.01)
    cold = SimulatedNeuron("a", [SimulatedModel(MODEL, 16_000, load_seconds=0, resident=False)])
    cold.switches.gated_loads = True
    async with (
        running(cold) as neuron,
        core(
            tmp_path,
            {"a": neuron.url},
            clocks=clocks,
            anthropic={"a"},
            catalogue=Catalogue((CatalogueModel(MODEL, vram_mb=16_000),)),
        ) as it,
        trio.open_nursery() as nursery,
    ):
        client = RecordingClient()

        async def ask() -> None:
            await it.ask(message(stream=True), path=PATH, client=client)

        nursery.start_soon(ask)
        await client.wait_for_pieces(3)
        await neuron.allow_load()
        await client.wait_for_end()
        assert neuron.seen[-1].path == PATH
    assert kinds(client).count("message_start") == 1
    read_stream(client.body)


async def test_a_stream_past_its_reserved_output_is_cut_and_ended(tmp_path: Path) -> None:
    async with (
        fake_neuron(reply_tokens=100, ignore_max_tokens=True) as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}) as it,
    ):
        client = await it.ask(message(stream=True), path=PATH)
        told = it.told[-1]
        assert told.charge is not None
        assert (told.charge.why, told.charge.tokens) == ("cut", told.reserved)
        with trio.fail_after(5):
            await neuron.wait_for_hang_up()
    stream = read_stream(client.body)
    assert stream.delta["stop_reason"] == "max_tokens"
    assert kinds(client).count("content_block_delta") == 20


@pytest.mark.parametrize(
    "broken",
    [
        Broken(BreakKind.EOF, 3),
        Broken(BreakKind.RESET, 3),
        Broken(BreakKind.END, 3),
        Broken(BreakKind.SILENCE, 3),
        Broken(BreakKind.GARBAGE, 3),
        Broken(BreakKind.ERROR_FRAME, 3),
        Broken(BreakKind.GARBAGE, 3, b'data: {"type":"content_block_delta","delta":"x"}\n\n'),
        Broken(BreakKind.GARBAGE, 3, b'event: message_stop\ndata: {"type":"message_stop"}\n\n'),
        Broken(BreakKind.GARBAGE, 3, b'data: {"error":"at http://10.0.0.7:1 died"}\n\n'),
    ],
    ids=str,
)
async def test_a_broken_stream_ends_in_an_error_and_is_charged_in_full(
    tmp_path: Path, broken: Broken
) -> None:
    async with (
        fake_neuron(reply_tokens=10, broken=broken) as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}, clocks=QUICK) as it,
    ):
        client = await it.ask(message(stream=True, max_tokens=400), path=PATH)
        last = json.loads(client.events()[-1])
        assert (client.status, last["type"], last["error"]["type"]) == (200, "error", "api_error")
        assert not {"message_stop", "message_delta"} & set(kinds(client))
        assert kinds(client)[-2] == "content_block_stop"
        assert b"10.0.0.7" not in client.body
        told = it.told[-1]
        assert told.charge is not None
        assert (told.charge.why, told.charge.tokens) == ("failed", told.reserved)


@pytest.mark.parametrize("lie", [lie for lie in UsageLie if lie is not UsageLie.HONEST])
@pytest.mark.parametrize("stream", [False, True], ids=["plain", "streamed"])
async def test_usage_that_nobody_can_believe_is_never_cheaper_than_what_was_seen(
    tmp_path: Path, lie: UsageLie, stream: bool
) -> None:
    async with (
        fake_neuron(usage=lie, reply_tokens=10) as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}, keys=[key(hard_cap=10**15)]) as it,
    ):
        client = await it.ask(message(stream=stream), path=PATH)
        is_json = stream or lie is not UsageLie.NOT_A_NUMBER
        assert client.status == (200 if is_json else 502)
        told = it.told[-1]
        assert told.charge is not None
        if lie is UsageLie.LOW:
            assert told.charge.tokens >= (neuron.counters.served.total if stream else 1)
        else:
            assert told.charge.tokens == told.reserved


async def test_a_neurons_refusal_is_told_in_our_words(tmp_path: Path) -> None:
    theirs = b'{"type":"error","error":{"type":"%b","message":"%b"}}'
    cases = [
        (400, b"invalid_request_error", TOO_LONG, 400),
        (401, b"authentication_error", b"x", 502),
        (529, b"overloaded_error", b"at 10.0.0.7:80", 503),
        (400, b"invalid_request_error", OVER_LIMIT, 400),
        (404, b"not_found_error", b"Not Found", 400),
    ]
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, anthropic={"a"}) as it,
    ):
        for status, kind, words, shown in cases:
            canned = Canned(status, theirs % (kind, words))
            neuron.switches.faults = {PATH: canned}
            client = await it.ask(message(), path=PATH)
            assert (client.status, json.loads(client.body)["type"]) == (shown, "error")
            assert b"10.0.0.7" not in client.body
            if words in (TOO_LONG, OVER_LIMIT):
                assert client.error["message"] == words.decode()
        assert (await it.standing()).spent == 0


async def test_more_is_reserved_where_a_neuron_may_translate_itself(tmp_path: Path) -> None:
    """Each block may become a message of its own there, with marks around it."""
    blocks = [{"type": "text", "text": "a"}] * 50
    asked = message(messages=[{"role": "user", "content": blocks}])
    reserved = []
    for anthropic in ((), ("a",)):
        switches = turned(reply_tokens=3)
        async with (
            running(SimulatedNeuron("a", switches=switches)) as neuron,
            core(tmp_path / str(len(anthropic)), {"a": neuron.url}, anthropic=anthropic) as it,
        ):
            await it.ask(asked, path=PATH)
            told = it.told[-1]
            assert told.charge is not None
            assert told.charge.overrun == 0
            assert told.reserved is not None
            assert told.reserved >= neuron.counters.served.requests[-1].total
            reserved.append(told.reserved)
    assert reserved[1] == reserved[0] + 32 * 50

"""Every way in which a simulated neuron can misbehave really happens on the wire."""

import math
import select
from pathlib import Path

import httpx
import pytest
import trio

from cortexd.demo.counters import read_served_log
from cortexd.demo.errors import INFERENCE_ERRORS, inference_error
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import EVERY_PATH, BreakKind, Broken, Canned, UsageLie
from tests.demo.asking import MODEL, ask, call, deltas, events, question, raw_client, stream
from tests.support.fake_neuron import fake_neuron, running, turned

STREAMED = question(stream=True)


async def test_the_gate_lets_out_exactly_the_tokens_that_were_allowed() -> None:
    async with fake_neuron(gated=True, reply_tokens=5) as neuron, raw_client(neuron) as client:
        await client.post(STREAMED)
        await neuron.wait_for_hits(1)
        await neuron.allow(2)
        await neuron.wait_for_tokens(2)
        await trio.testing.wait_all_tasks_blocked()
        assert neuron.counters.tokens.count == 2
        assert neuron.counters.served.requests[0].completion == 2
        assert neuron.in_flight == 1
        await neuron.allow(3)
        await client.read_until(b"[DONE]")

    assert neuron.counters.tokens.count == 5


async def test_a_hang_up_in_a_stream_is_noticed_and_ends_the_generation() -> None:
    async with fake_neuron(gated=True, reply_tokens=50) as neuron, raw_client(neuron) as client:
        await client.post(STREAMED)
        await neuron.allow(1)
        await neuron.wait_for_tokens(1)
        await client.hang_up()
        await neuron.wait_for_hang_up()

        assert neuron.in_flight == 0
        assert neuron.counters.served.requests[0].completion == 1


@pytest.mark.parametrize("body", [question(), STREAMED])
async def test_a_hang_up_is_noticed_while_the_neuron_is_silent(body: dict[str, object]) -> None:
    async with fake_neuron(silent=True) as neuron, raw_client(neuron) as client:
        await client.post(body)
        await neuron.wait_for_hits(1)
        assert neuron.in_flight == 1
        assert (await call(neuron, "GET", "/health")).status_code == 200
        await client.hang_up()
        await neuron.wait_for_hang_up()

    assert neuron.hang_ups == 1


async def test_a_hang_up_without_a_reader_is_noticed_while_writing() -> None:
    async with fake_neuron(reply_tokens=100_000) as neuron, raw_client(neuron) as client:
        neuron.switches.ignore_max_tokens = True
        await client.post(STREAMED)
        await neuron.wait_for_tokens(10)
        await client.hang_up()
        await neuron.wait_for_hang_up()

    assert neuron.counters.served.requests[0].completion < 100_000


async def test_a_reader_that_took_everything_does_not_count_as_a_hang_up() -> None:
    async with fake_neuron() as neuron:
        await ask(neuron, question())
        await stream(neuron, question())

    assert neuron.hang_ups == 0


async def test_a_slow_prefill_sends_comments_until_the_prompt_is_read() -> None:
    async with (
        fake_neuron(gated_prefill=True, comment_seconds=0.001) as neuron,
        raw_client(neuron) as client,
    ):
        await client.post(STREAMED)
        await client.read_until(b": keep-alive\n\n")
        assert b"assistant" not in client.received
        await neuron.allow_prefill()
        await client.read_until(b"[DONE]")


async def test_the_head_can_wait_for_the_first_token() -> None:
    switches = turned(gated=True, head_with_first_token=True, reply_tokens=2)
    neuron = SimulatedNeuron(switches=switches)
    async with running(neuron), raw_client(neuron) as client:
        await client.post(STREAMED)
        await neuron.wait_for_hits(1)
        await trio.testing.wait_all_tasks_blocked()
        assert select.select([client.connection.socket.fileno()], [], [], 0)[0] == []
        await neuron.allow(2)
        whole = await client.read_until(b"[DONE]")

    assert whole.startswith(b"HTTP/1.1 200")
    assert whole.count(b'"content":') == 3


async def test_paces_in_seconds_are_kept() -> None:
    async with fake_neuron(token_seconds=0.01, prefill_seconds=0.02, reply_tokens=3) as neuron:
        began = trio.current_time()
        await stream(neuron, question())

        assert trio.current_time() - began >= 0.05


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        (UsageLie.ZERO, 0),
        (UsageLie.NEGATIVE, -7),
        (UsageLie.HUGE, 10**18),
        (UsageLie.FLOAT, 12.5),
        (UsageLie.STRING, "12"),
        (UsageLie.BOOLEAN, True),
        (UsageLie.LOW, 4),
        ({"completion_tokens": [8]}, [8]),
    ],
)
async def test_usage_can_lie(lie: UsageLie | dict[str, object], expected: object) -> None:
    async with fake_neuron(usage=lie, reply_tokens=8) as neuron:
        plain = (await ask(neuron, question())).json()["usage"]
        streamed = (await stream(neuron, question()))[-2]["usage"]

    assert plain["completion_tokens"] == streamed["completion_tokens"] == expected
    assert type(plain["completion_tokens"]) is type(expected)
    assert neuron.counters.served.requests[0].completion == 8


async def test_usage_can_be_no_number_null_or_absent() -> None:
    async with fake_neuron(usage=UsageLie.NOT_A_NUMBER) as neuron:
        assert math.isnan((await ask(neuron, question())).json()["usage"]["total_tokens"])
        neuron.switches.usage = UsageLie.NULL
        assert (await ask(neuron, question())).json()["usage"] is None
        neuron.switches.usage = UsageLie.ABSENT
        assert "usage" not in (await ask(neuron, question())).json()
        assert all("usage" not in chunk for chunk in await stream(neuron, question()))


async def test_usage_can_come_when_asked_only_or_on_the_finish_chunk() -> None:
    async with fake_neuron(usage_only_when_asked=True) as neuron:
        assert (await stream(neuron, question()))[-2]["choices"]
        asked = question(stream_options={"include_usage": True})
        assert (await stream(neuron, asked))[-2]["usage"]
        neuron.switches.usage_on_finish_chunk = True
        finish, done = (await stream(neuron, asked))[-2:]
        assert (finish["choices"][0]["finish_reason"], done) == ("stop", "[DONE]")
        assert finish["usage"]["completion_tokens"] > 0


async def test_a_stream_can_lack_finish_reason_and_done() -> None:
    async with fake_neuron(no_finish_reason=True, no_done=True) as neuron:
        chunks = await stream(neuron, question())
        plain = (await ask(neuron, question())).json()

    assert "[DONE]" not in chunks
    assert all(not c["choices"] or not c["choices"][0]["finish_reason"] for c in chunks)
    assert plain["choices"][0]["finish_reason"] is None


async def test_line_ends_chunk_sizes_and_framing_can_differ() -> None:
    async with fake_neuron(reply_tokens=6) as neuron:
        usual = "".join(deltas(await stream(neuron, question())))
        neuron.switches.line_end = b"\r\n"
        neuron.switches.tokens_per_chunk = 4
        neuron.switches.until_close = True
        response = await ask(neuron, STREAMED)
        neuron.switches.plain_chunked = True
        plain = await ask(neuron, question())

    assert "\r\n\r\n" in response.text
    assert "\n\n" not in response.text
    pieces = deltas(events(response.text))
    assert ("".join(pieces), len(pieces)) == (usual, 2)
    assert response.headers["connection"] == "close"
    assert plain.headers["transfer-encoding"] == "chunked"
    assert plain.json()["choices"][0]["message"]["content"] == usual


async def test_max_tokens_can_be_ignored() -> None:
    async with fake_neuron(ignore_max_tokens=True) as neuron:
        usage = (await ask(neuron, question(max_tokens=100))).json()["usage"]
        assert usage["completion_tokens"] == 200
        neuron.switches.reply_tokens = 3
        usage = (await ask(neuron, question(max_tokens=2))).json()["usage"]
        assert usage["completion_tokens"] == 3


@pytest.mark.parametrize("after_tokens", [None, 0, 3])
@pytest.mark.parametrize("body", [question(), STREAMED])
async def test_a_reset_is_a_reset(body: dict[str, object], after_tokens: int | None) -> None:
    broken = Broken(BreakKind.RESET, after_tokens)
    async with fake_neuron(broken=broken, reply_tokens=9) as neuron, raw_client(neuron) as client:
        await client.post(body)
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.read_to_end()

    assert isinstance(caught.value.__cause__, ConnectionResetError)
    assert (client.received == b"") == (after_tokens is None)
    assert neuron.counters.served.total == 0 or neuron.counters.tokens.count == after_tokens
    assert neuron.hang_ups == 0


@pytest.mark.parametrize("after_tokens", [None, 0, 3, 99])
@pytest.mark.parametrize("body", [question(), STREAMED])
async def test_a_connection_can_close_in_the_middle(
    body: dict[str, object], after_tokens: int | None
) -> None:
    broken = Broken(BreakKind.EOF, after_tokens)
    async with fake_neuron(broken=broken, reply_tokens=9) as neuron:
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(neuron, body)

    assert neuron.counters.tokens.count == min(after_tokens or 0, 9)


async def test_a_stream_can_end_cleanly_without_an_end() -> None:
    async with fake_neuron(broken=Broken(BreakKind.END, 2)) as neuron:
        chunks = await stream(neuron, question())

    assert len(deltas(chunks)) == 2
    assert "[DONE]" not in chunks
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks)


@pytest.mark.parametrize("kind", [BreakKind.ERROR_FRAME, BreakKind.ERROR_FRAME_THEN_DONE])
async def test_an_error_can_come_in_the_middle(kind: BreakKind) -> None:
    async with fake_neuron(broken=Broken(kind, 2)) as neuron:
        chunks = await stream(neuron, question())
        plain = await ask(neuron, question())

    assert len(deltas(chunks[:3])) == 2
    assert chunks[3]["error"]["type"] == "api_error"
    assert (chunks[-1] == "[DONE]") == (kind is BreakKind.ERROR_FRAME_THEN_DONE)
    assert plain.status_code == 500


async def test_garbage_can_take_the_place_of_anything() -> None:
    async with fake_neuron(broken=Broken(BreakKind.GARBAGE, 1)) as neuron:
        assert (await ask(neuron, STREAMED)).text.endswith(
            "proxy error: Failed to read connection\n"
        )
        assert (await ask(neuron, question())).text.startswith("proxy error")
        neuron.switches.broken = Broken(BreakKind.GARBAGE, garbage=b"\x00\xffnonsense\r\n\r\n")
        with pytest.raises(httpx.RemoteProtocolError):
            await ask(neuron, question())


@pytest.mark.parametrize("body", [question(), STREAMED])
async def test_silence_in_the_middle_lasts_until_the_client_leaves(body: dict[str, object]) -> None:
    async with (
        fake_neuron(broken=Broken(BreakKind.SILENCE, 2)) as neuron,
        raw_client(neuron) as client,
    ):
        await client.post(body)
        await neuron.wait_for_tokens(2)
        await client.hang_up()
        await neuron.wait_for_hang_up()

    assert neuron.counters.tokens.count == 2


async def test_a_switch_turned_during_a_stream_works_at_the_next_token() -> None:
    async with fake_neuron(gated=True) as neuron, raw_client(neuron) as client:
        await client.post(STREAMED)
        await neuron.allow(1)
        await neuron.wait_for_tokens(1)
        neuron.switches.broken = Broken(BreakKind.END)
        await neuron.allow(1)
        await client.read_until(b"\r\n0\r\n\r\n")

    assert neuron.counters.tokens.count == 2


@pytest.mark.parametrize("row", INFERENCE_ERRORS)
async def test_every_row_of_the_error_table_can_be_answered(row: str) -> None:
    async with fake_neuron() as neuron:
        neuron.switches.faults["/v1/chat/completions"] = inference_error(row, "no", extra=1)
        response = await ask(neuron, question())

    assert response.status_code >= 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code", "extra"}
    assert response.status_code != 503 or int(response.headers["retry-after"]) > 0


async def test_any_status_body_and_retry_after_can_be_answered() -> None:
    async with fake_neuron() as neuron:
        neuron.switches.refuse(402, b"pay me", retry_after="7")
        chat = await ask(neuron, question())
        neuron.switches.faults["/models"] = Canned(200, b"{not json")
        models = await call(neuron, "GET", "/models")
        health = await call(neuron, "GET", "/health")

    assert (chat.status_code, chat.text, chat.headers["retry-after"]) == (402, "pay me", "7")
    assert models.text == "{not json"
    assert health.status_code == 200


async def test_management_calls_can_break_too() -> None:
    async with fake_neuron() as neuron:
        neuron.switches.faults[EVERY_PATH] = Broken(BreakKind.EOF)
        with pytest.raises(httpx.RemoteProtocolError):
            await call(neuron, "GET", "/models")
        neuron.switches.faults[EVERY_PATH] = Broken(BreakKind.RESET)
        with pytest.raises(httpx.ReadError):
            await call(neuron, "GET", "/health")


async def test_a_hung_up_poll_is_not_counted_as_a_hang_up() -> None:
    async with fake_neuron() as neuron:
        neuron.switches.faults["/models"] = Broken(BreakKind.SILENCE)
        async with raw_client(neuron) as client:
            await client.connection.send_all(b"GET /models HTTP/1.1\r\n\r\n")
            await neuron.wait_for_path("/models")
            await client.hang_up()
            await neuron.counters.polls_hung_up.wait_for(1)

    assert neuron.hang_ups == 0


async def test_a_draining_neuron_says_so() -> None:
    async with fake_neuron(draining=True) as neuron:
        response = await ask(neuron, question())

    assert (response.status_code, response.headers["retry-after"]) == (503, "15")
    assert response.json()["error"]["code"] == "shutting_down"


async def test_the_served_log_tells_what_memory_tells(tmp_path: Path) -> None:
    path = tmp_path / "served"
    neuron = SimulatedNeuron(switches=turned(fixed_usage=(5, 10)), served_log=str(path))
    async with running(neuron):
        await ask(neuron, question(), x_helexa_key_id="key-a")
        await stream(neuron, question())
    neuron.counters.served.close()
    path.write_bytes(path.read_bytes() + b"key-a\t9")  # a line that a kill has torn

    assert read_served_log(str(path)) == neuron.counters.served.by_key


def test_a_switch_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(TypeError, match="no such switch: slwo"):
        turned(slwo=1)


def test_the_test_model_is_what_the_default_neuron_serves() -> None:
    assert list(SimulatedNeuron().machine.rack.resident) == [MODEL]

"""A request's way through the core, over a real ledger and simulated neurons."""

import json
import sys
from pathlib import Path

import pytest
import trio
import trio.testing

from cortexd.config.schema import Catalogue, CatalogueModel, Limit
from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import BreakKind, Broken, Canned, UsageLie
from cortexd.gateway.exchange import Head, Incoming
from cortexd.gateway.pipeline import Admitted
from cortexd.gateway.relay import Clocks
from tests.fleet.scripted import Peer, ok, scripted
from tests.fleet.talking import NOT_FOUND
from tests.support.core import RecordingClient, core, key
from tests.support.daemon_process import chat
from tests.support.fake_neuron import fake_neuron, running, turned

NO_NEURON = {"gone": "http://127.0.0.1:1"}
BOUND = 32 + 20  # the bytes of chat()'s messages and its max_tokens


async def test_a_plain_answer_is_charged_by_its_usage(tmp_path: Path) -> None:
    async with fake_neuron(fixed_usage=(5, 10)) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        client = await it.ask(chat())
        assert (client.status, client.finished) == (200, True)
        assert json.loads(client.body)["usage"]["total_tokens"] == 15
        assert (await it.standing()).spent == 15
        [told] = it.told
        assert (told.status, told.neuron, told.reserved) == (200, "a", BOUND)
        assert told.charge is not None
        assert (told.charge.tokens, told.charge.why) == (15, "settle")


async def test_the_settlement_is_in_the_books_before_the_last_bytes_are_sent(
    tmp_path: Path,
) -> None:
    """A client that asks for its budget after its answer must see what the answer cost."""
    spent_at_the_end: list[int] = []

    async with fake_neuron(fixed_usage=(5, 10)) as neuron, core(tmp_path, {"a": neuron.url}) as it:

        class Asking(RecordingClient):
            async def finish(self, data: bytes = b"") -> None:
                spent_at_the_end.append((await it.standing()).spent)
                await super().finish(data)

        await it.ask(chat(), client=Asking())
        await it.ask(chat(stream=True), client=Asking())
    assert spent_at_the_end == [15, 30]


async def test_a_stream_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    async with (
        fake_neuron(gated=True, reply_tokens=3) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
        trio.open_nursery() as nursery,
    ):
        client = RecordingClient()

        async def ask() -> None:
            await it.ask(chat(stream=True), client=client)

        nursery.start_soon(ask)
        for token in range(1, 4):
            await neuron.allow(1)
            await client.wait_for_tokens(token)
            assert client.tokens == token


async def test_the_usage_chunk_goes_only_to_a_client_that_asked_for_it(tmp_path: Path) -> None:
    async with fake_neuron(reply_tokens=3) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        unasked = await it.ask(chat(stream=True))
        asked = await it.ask(chat(stream=True, stream_options={"include_usage": True}))
        assert b'"usage":{' not in unasked.body
        assert all(json.loads(event)["choices"] for event in unasked.events()[:-1])
        assert json.loads(asked.events()[-2])["usage"]["completion_tokens"] == 3
        assert [stream.events()[-1] for stream in (unasked, asked)] == ["[DONE]", "[DONE]"]


async def test_the_neuron_gets_one_limit_and_the_principal_and_no_knobs(tmp_path: Path) -> None:
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        await it.ask(
            chat(max_completion_tokens=7, n_predict=500, best_of=9, temperature=0.5),
            x_helexa_key_id="somebody-else",
            x_conversation_id="keep-generating",
            cookie="secret",
        )
        request = neuron.seen[-1]
        body = json.loads(request.body)
        headers = {name.decode().lower(): value.decode() for name, value in request.headers}
        assert body["max_tokens"] == 7
        assert not {"max_completion_tokens", "n_predict", "best_of"} & set(body)
        assert body["temperature"] == 0.5
        assert headers["x-helexa-account-id"] == "acct-cap"
        assert headers["x-helexa-key-id"] == "key-cap"
        assert not {"authorization", "cookie", "x-conversation-id"} & set(headers)


async def test_an_alias_is_resolved_and_the_client_reads_the_name_it_used(tmp_path: Path) -> None:
    catalogue = Catalogue(aliases={"small": "sim/small"})
    async with (
        fake_neuron(reply_tokens=2) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=catalogue) as it,
    ):
        plain = await it.ask(chat(model="small"))
        stream = await it.ask(chat(model="small", stream=True))
        assert json.loads(neuron.seen[-1].body)["model"] == "sim/small"
        assert json.loads(plain.body)["model"] == "small"
        assert {json.loads(event)["model"] for event in stream.events()[:-1]} == {"small"}


async def test_if_connecting_fails_the_next_neuron_is_tried_under_the_same_reservation(
    tmp_path: Path,
) -> None:
    dying, living, dead = SimulatedNeuron("a"), trio.CancelScope(), trio.Event()
    dying.bind()

    async def live(*, task_status: trio.TaskStatus[None]) -> None:
        with living:
            await dying.serve(task_status=task_status)
        dead.set()

    async with (
        fake_neuron("b", fixed_usage=(5, 10)) as alive,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(live)
        async with core(tmp_path, {"a": dying.url, "b": alive.url}) as it:
            living.cancel()
            await dead.wait()
            client = await it.ask(chat())
            assert (client.status, alive.chat_hits) == (200, 1)
            assert (await it.standing()).spent == 15
            assert it.told[-1].neuron == "b"


@pytest.mark.parametrize("status", [404, 429, 503, 529])
async def test_a_neuron_that_turns_a_request_away_is_passed_over(
    tmp_path: Path, status: int
) -> None:
    async with (
        fake_neuron("a") as busy,
        fake_neuron("b", fixed_usage=(5, 10)) as free,
        core(tmp_path, {"a": busy.url, "b": free.url}) as it,
    ):
        busy.switches.refuse(status)
        assert (await it.ask(chat())).status == 200
        assert (busy.chat_hits, free.chat_hits) == (1, 1)


async def test_without_any_neuron_the_reservation_is_released_in_full(tmp_path: Path) -> None:
    catalogue = Catalogue(models=(CatalogueModel("sim/small"),))
    async with core(tmp_path, NO_NEURON, catalogue=catalogue) as it:
        client = await it.ask(chat())
        standing = await it.standing()
        assert (client.status, client.error["code"]) == (503, "no_neuron")
        assert int(client.headers["retry-after"]) >= 1
        assert (standing.spent, standing.reserved) == (0, 0)


async def test_a_model_that_a_silent_neuron_may_have_is_no_404(tmp_path: Path) -> None:
    """Clients give a model up after a 404, and after a restart every neuron is silent at first."""
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url, **NO_NEURON}) as it:
        client = await it.ask(chat(model="perhaps/there"))
        assert (client.status, client.error["code"]) == (503, "no_neuron")
        assert int(client.headers["retry-after"]) >= 1


async def test_an_unknown_model_is_a_404_and_costs_nothing(tmp_path: Path) -> None:
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        client = await it.ask(chat(model="nobody/knows"))
        assert (client.status, client.error["code"]) == (404, "model_not_found")
        assert neuron.chat_hits == 0
        assert it.told[-1].model == "", "a name that a client made up must not become a label"


@pytest.mark.parametrize(
    ("status", "shown"), [(400, 400), (402, 502), (401, 502), (403, 502), (413, 413), (500, 502)]
)
async def test_a_neurons_error_is_shown_in_our_own_words(
    tmp_path: Path, status: int, shown: int
) -> None:
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        body = b'{"error":{"message":"see http://10.0.0.7:13131/x","type":"x","code":null}}'
        neuron.switches.refuse(status, body)
        client = await it.ask(chat())
        assert client.status == shown
        assert b"10.0.0.7" not in client.body
        charged = (await it.standing()).spent
        assert charged == (BOUND if status == 500 else 0), "only a 5xx may hide finished work"


async def test_a_404_that_names_no_model_has_the_neuron_polled_at_once(tmp_path: Path) -> None:
    """It may be about the path; or the neuron has lost the model, and its list says so."""
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        neuron.switches.refuse(404, b"{}")
        client = await it.ask(chat())
        assert (client.status, client.error["code"]) == (400, "endpoint_not_served")
        with trio.fail_after(20):
            while neuron.counters.hits["/models"] < 2:
                await trio.testing.wait_all_tasks_blocked(0.01)


async def test_a_streamed_request_that_fails_before_its_first_event_costs_nothing(
    tmp_path: Path,
) -> None:
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        neuron.switches.refuse(500)
        client = await it.ask(chat(stream=True))
        assert (client.status, (await it.standing()).spent) == (502, 0)


@pytest.mark.parametrize(
    "lie",
    [
        UsageLie.ABSENT,
        UsageLie.NULL,
        UsageLie.ZERO,
        UsageLie.NEGATIVE,
        UsageLie.FLOAT,
        UsageLie.STRING,
        UsageLie.NOT_A_NUMBER,
        UsageLie.BOOLEAN,
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_usage_that_cannot_be_believed_is_charged_in_full(
    tmp_path: Path, lie: UsageLie, stream: bool
) -> None:
    async with (
        fake_neuron(reply_tokens=4, usage=lie) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        await it.ask(chat(stream=stream))
        standing = await it.standing()
        assert (standing.spent, standing.reserved) == (BOUND, 0)


async def test_usage_lower_than_what_was_streamed_is_raised_to_it(tmp_path: Path) -> None:
    async with (
        fake_neuron(reply_tokens=10, usage=UsageLie.LOW) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        await it.ask(chat(stream=True))
        [told] = it.told
        assert told.usage is not None
        assert (await it.standing()).spent == told.usage.prompt_tokens + 10


async def test_usage_above_the_reservation_is_recorded_as_it_is(tmp_path: Path) -> None:
    async with (
        fake_neuron(
            usage={"prompt_tokens": 5000, "completion_tokens": 9, "total_tokens": 5009}
        ) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        await it.ask(chat())
        [told] = it.told
        assert told.charge is not None
        assert (told.charge.tokens, told.charge.overrun) == (5009, 5009 - BOUND)
        assert (await it.standing()).spent == 5009


@pytest.mark.parametrize("include_usage", [False, True])
async def test_a_stream_past_its_reserved_output_is_cut(
    tmp_path: Path, include_usage: bool
) -> None:
    async with (
        fake_neuron(reply_tokens=500, ignore_max_tokens=True) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        client = await it.ask(chat(stream=True, stream_options={"include_usage": include_usage}))
        chunks = [json.loads(event) for event in client.events()[:-1]]
        finish = [chunk["choices"][0]["finish_reason"] for chunk in chunks if chunk["choices"]]
        assert client.events()[-1] == "[DONE]"
        assert [reason for reason in finish if reason] == ["length"]
        assert client.tokens == 20
        with trio.fail_after(5):
            await neuron.wait_for_hang_up()
        assert (await it.standing()).spent == BOUND


@pytest.mark.parametrize(
    "kind",
    [BreakKind.RESET, BreakKind.EOF, BreakKind.END, BreakKind.GARBAGE, BreakKind.ERROR_FRAME],
)
async def test_a_stream_that_breaks_ends_in_an_error_and_what_was_seen_is_charged(
    tmp_path: Path, kind: BreakKind
) -> None:
    async with (
        fake_neuron(reply_tokens=10, broken=Broken(kind, after_tokens=4)) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        client = await it.ask(chat(stream=True, max_tokens=400))
        assert (client.status, client.finished) == (200, True)
        assert "error" in json.loads(client.events()[-1])
        assert "[DONE]" not in client.events()
        standing = await it.standing()
        assert standing.reserved == 0
        assert 4 < standing.spent <= 32 + 4 + 64


async def test_a_stream_that_breaks_before_it_began_is_an_http_error(tmp_path: Path) -> None:
    async with (
        fake_neuron(broken=Broken(BreakKind.RESET)) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        client = await it.ask(chat(stream=True, max_tokens=400))
        assert (client.status, client.error["code"]) == (502, "upstream_failed")
        assert 0 < (await it.standing()).spent < 432, "the neuron may have read the prompt"


async def test_a_plain_answer_that_breaks_is_charged_in_full(tmp_path: Path) -> None:
    async with (
        fake_neuron(broken=Broken(BreakKind.EOF, after_tokens=2)) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        client = await it.ask(chat())
        assert client.status == 502
        assert (await it.standing()).spent == BOUND


async def test_a_neuron_that_falls_silent_is_given_up_after_its_clock(tmp_path: Path) -> None:
    clocks = Clocks(first_byte_seconds=0.2, between_bytes_seconds=0.2)
    async with (
        fake_neuron(silent=True) as neuron,
        core(tmp_path, {"a": neuron.url}, clocks=clocks) as it,
    ):
        client = await it.ask(chat())
        assert (client.status, client.error["code"]) == (504, "upstream_timeout")
        assert client.headers["x-should-retry"] == "false"
        with trio.fail_after(5):
            await neuron.wait_for_hang_up()


async def test_a_stream_that_stalls_ends_in_an_error(tmp_path: Path) -> None:
    clocks = Clocks(first_byte_seconds=5, between_bytes_seconds=0.2)
    async with (
        fake_neuron(reply_tokens=10, broken=Broken(BreakKind.SILENCE, after_tokens=3)) as neuron,
        core(tmp_path, {"a": neuron.url}, clocks=clocks) as it,
    ):
        client = await it.ask(chat(stream=True))
        assert "error" in json.loads(client.events()[-1])
        assert client.tokens == 3


async def test_a_client_that_hangs_up_closes_the_neurons_connection_and_pays_for_what_was_seen(
    tmp_path: Path,
) -> None:
    async with (
        fake_neuron(gated=True, reply_tokens=900) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        client = RecordingClient()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                await it.ask(chat(stream=True, max_tokens=900), client=client)

            nursery.start_soon(ask)
            await neuron.allow(6)
            await client.wait_for_tokens(6)
            client.hang_up()
            left_at = trio.current_time()
            with trio.fail_after(5):
                await neuron.wait_for_hang_up()
            assert trio.current_time() - left_at < 0.5
        assert (await it.standing()).spent == 32 + 6 + 64
        [told] = it.told
        assert told.charge is not None
        assert (told.status, told.charge.why) == (200, "abort")


async def test_a_broken_stream_of_an_openai_server_is_charged_in_full(tmp_path: Path) -> None:
    """Such engines hold text back, so what passed does not say what was generated."""
    broken = Broken(BreakKind.RESET, after_tokens=4)
    async with (
        fake_neuron(reply_tokens=10, broken=broken) as neuron,
        core(tmp_path, {"a": neuron.url}, kind="openai") as it,
    ):
        await it.ask(chat(stream=True))
        assert (await it.standing()).spent == BOUND


async def test_a_client_that_takes_nothing_and_leaves_is_charged_in_full(tmp_path: Path) -> None:
    """What a neuron generated meanwhile waits unread on its connection."""

    class Stalling(RecordingClient):
        async def write(self, data: bytes) -> None:
            await super().write(data)
            await self.gone()

    client = Stalling()
    async with (
        fake_neuron(reply_tokens=900) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
        trio.open_nursery() as nursery,
    ):

        async def leave() -> None:
            await neuron.wait_for_tokens(3)
            client.hang_up()

        nursery.start_soon(leave)
        await it.ask(chat(stream=True, max_tokens=900), client=client)
        assert (await it.standing()).spent == 32 + 900


async def test_a_cancelled_request_settles_what_was_seen(tmp_path: Path) -> None:
    """A daemon that is told to stop cancels what outlasts its grace; nothing stays reserved."""
    async with (
        fake_neuron(gated=True, reply_tokens=900) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        client = RecordingClient()
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                await it.ask(chat(stream=True, max_tokens=900), client=client)

            nursery.start_soon(ask)
            await neuron.allow(2)
            await client.wait_for_tokens(2)
            nursery.cancel_scope.cancel()
        standing = await it.standing()
        assert (standing.reserved, standing.spent) == (0, 32 + 2 + 64)
        [told] = it.told
        assert told.charge is not None, "counted in the metrics, too"


async def test_several_choices_are_reserved_for_and_charged_in_full(tmp_path: Path) -> None:
    """Engines report the usage of one choice only."""
    async with fake_neuron(reply_tokens=3) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        await it.ask(chat(n=3))
        assert (await it.standing()).spent == 32 + 3 * 20


async def test_what_a_template_adds_is_learned_and_reserved_from_then_on(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 50, "completion_tokens": 3}
    async with (
        fake_neuron(usage=usage, reply_tokens=3) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        await it.ask(chat())
        await it.ask(chat())
        assert [told.reserved for told in it.told] == [BOUND, 50 + 20]
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        await it.ask(chat())
        assert it.told[-1].reserved == 50 + 20, "remembered over a restart"


async def test_what_a_client_has_a_template_say_is_not_learned(tmp_path: Path) -> None:
    """Or one key could make a model too dear for all others."""
    usage = {"prompt_tokens": 500, "completion_tokens": 3}
    async with (
        fake_neuron(usage=usage, reply_tokens=3) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[key(hard_cap=100_000)]) as it,
    ):
        await it.ask(chat(chat_template_kwargs={"style": "x"}))
        await it.ask(chat())
        assert it.told[-1].reserved == BOUND


@pytest.mark.parametrize(("beyond", "is_learned"), [(1024, True), (1025, False)])
async def test_of_a_prompt_with_tools_little_is_learned(
    tmp_path: Path, beyond: int, *, is_learned: bool
) -> None:
    """What a template makes of a client's tools is not the model's affair."""
    tools = [{"type": "function", "function": {"name": "f"}}]
    keys = [key(hard_cap=100_000)]
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}, keys=keys) as it:
        await it.ask(chat(tools=tools))
        prompt_tokens = (it.told[-1].reserved or 0) - 20
        told = {"prompt_tokens": prompt_tokens + beyond, "completion_tokens": 3}
        neuron.switches.usage = dict[str, object](told)
        await it.ask(chat(tools=tools))
        await it.ask(chat())
        assert it.told[-1].reserved == BOUND + beyond * is_learned


async def test_a_neuron_that_claims_an_absurd_prompt_does_not_lock_the_model(
    tmp_path: Path,
) -> None:
    usage = {"prompt_tokens": 10**9, "completion_tokens": 3}
    keys = [key(hard_cap=10**12)]
    async with (
        fake_neuron(usage=usage, reply_tokens=3) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=keys) as it,
    ):
        await it.ask(chat())
        await it.ask(chat())
        assert it.told[-1].reserved == BOUND, "nothing was learned from it"


IMAGE = [{"type": "image_url", "image_url": {"url": "http://example.invalid/x.png"}}]


async def test_an_image_is_reserved_for_with_the_whole_context(tmp_path: Path) -> None:
    asked = {**chat(), "messages": [{"role": "user", "content": IMAGE}]}
    sized = Catalogue(models=(CatalogueModel("sim/small", limit=Limit(context=1000)),))
    keys = [key(hard_cap=50_000)]
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=sized, keys=keys) as it,
    ):
        await it.ask(asked)
        assert it.told[-1].reserved == 32768 + 20, "the largest context that anybody states"


async def test_media_of_unknown_size_is_refused_for_capped_keys(tmp_path: Path) -> None:
    asked = {**chat(), "messages": [{"role": "user", "content": IMAGE}]}
    listed = {"/v1/models": Canned(body=b'{"object":"list","data":[{"id":"sim/small"}]}')}
    async with (
        fake_neuron(faults=listed) as neuron,
        core(tmp_path, {"a": neuron.url}, kind="openai") as it,
    ):
        refused = await it.ask(asked)
        assert (refused.status, neuron.chat_hits) == (400, 0)
        assert "image_tokens_max" in str(refused.error["message"])


async def test_every_answer_carries_both_request_id_headers(tmp_path: Path) -> None:
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        answers = [
            await it.ask(chat()),
            await it.ask(chat(stream=True)),
            await it.ask(b"{"),
            await it.ask(chat(max_tokens=10**6)),
            await it.ask(b"", path="/nowhere"),
            await it.ask(b"", path="/v1/models", method="GET"),
            await it.ask(b"", authorization="Bearer wrong"),
        ]
        for answer in answers:
            assert answer.headers["x-request-id"] == answer.headers["request-id"] == "req_test"


async def test_models_are_listed_from_the_view_and_the_catalogue(tmp_path: Path) -> None:
    catalogue = Catalogue(
        models=(CatalogueModel("org/cold", limit=Limit(context=8192, output=1024)),),
        aliases={"small": "sim/small"},
    )
    async with (
        fake_neuron() as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=catalogue) as it,
    ):
        listed = json.loads((await it.ask(b"", path="/v1/models", method="GET")).body)
        by_id = {entry["id"]: entry for entry in listed["data"]}
        assert set(by_id) == {"org/cold", "sim/small", "small"}
        assert (by_id["sim/small"]["loaded"], by_id["org/cold"]["loaded"]) == (True, False)
        assert by_id["org/cold"]["limit"] == {"context": 8192, "output": 1024}
        one = await it.ask(b"", path="/v1/models/org/cold", method="GET")
        assert json.loads(one.body) == by_id["org/cold"]
        assert (await it.ask(b"", path="/v1/models/none", method="GET")).status == 404


async def test_the_body_may_not_be_compressed(tmp_path: Path) -> None:
    """A bound on bytes means nothing when they are multiplied later."""
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:
        client = await it.ask(chat(), content_encoding="gzip")
        assert client.status == 415


async def test_a_bug_becomes_a_500_and_the_reservation_is_settled(tmp_path: Path) -> None:
    async with fake_neuron() as neuron, core(tmp_path, {"a": neuron.url}) as it:

        class Failing(RecordingClient):
            async def gone(self) -> None:
                raise ValueError("secret detail")

        client = await it.ask(chat(), client=Failing())
        assert (client.status, client.error["code"]) == (500, "internal_error")
        assert "secret detail" not in client.body.decode()
        assert (await it.standing()).reserved == 0


async def test_a_bug_in_a_stream_breaks_it_off_without_an_end(tmp_path: Path) -> None:
    async with (
        fake_neuron(gated=True, reply_tokens=9) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):

        class Failing(RecordingClient):
            async def gone(self) -> None:
                await self.wait_for_tokens(2)
                raise ValueError("secret detail")

        client = Failing()
        await neuron.allow(2)
        with pytest.raises(ExceptionGroup):
            await it.ask(chat(stream=True), client=client)
        assert not client.finished
        assert b"[DONE]" not in client.body
        assert (await it.standing()).reserved == 0


async def test_an_image_teaches_nothing_about_the_template(tmp_path: Path) -> None:
    """One image of an uncapped key must not raise what every later text request reserves."""
    asked = {**chat(), "messages": [{"role": "user", "content": IMAGE}]}
    keys = [key(), key("sk-free", "free", hard_cap=None, account_id="free")]
    seeing = SimulatedModel("sim/small", capabilities=("text", "vision"))
    switches = turned(
        usage={"prompt_tokens": 1500, "completion_tokens": 3},
        faults={"/v1/models": Canned(body=b'{"object":"list","data":[{"id":"sim/small"}]}')},
    )
    async with (
        running(SimulatedNeuron("a", [seeing], switches=switches)) as neuron,
        core(tmp_path, {"a": neuron.url}, kind="openai", keys=keys) as it,
    ):
        await it.ask(asked, authorization="Bearer sk-free")
        await it.ask(chat())
        assert [told.status for told in it.told] == [200, 200]
        assert it.told[-1].reserved == BOUND


async def says_503_and_breaks_off(peer: Peer) -> None:
    """A neuron that dies while it explains that it is busy."""
    while request := await peer.request():
        path = request.split()[1]
        if path == b"/v1/chat/completions":
            head = b"HTTP/1.1 503 Busy\r\ncontent-length: 50\r\nretry-after: 7\r\n\r\n"
            await peer.send(head + b"busy")
            return
        await peer.send(ok(b'[{"id":"sim/small"}]') if path == b"/models" else NOT_FOUND)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_refusal_counts_even_if_its_body_breaks_off(tmp_path: Path, stream: bool) -> None:
    async with (
        scripted(says_503_and_breaks_off) as busy,
        core(tmp_path, {"a": busy.url}) as it,
    ):
        client = await it.ask(chat(stream=stream))
        standing = await it.standing()
        assert (client.status, client.headers["retry-after"]) == (503, "7")
        assert (standing.spent, standing.reserved) == (0, 0)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_a_prompt_is_not_kept_while_its_answer_streams(tmp_path: Path, path: str) -> None:
    """It can be megabytes, and the answer take many minutes."""
    said = [{"role": "user", "content": "a" * 3_000}]
    body = json.dumps(chat(stream=True) | {"messages": said}).encode()
    kept_by_the_test = sys.getrefcount(body)
    head = Head("POST", path, {b"authorization": b"Bearer sk-cap"}, "req_test")
    client = RecordingClient()
    async with (
        fake_neuron(gated=True, reply_tokens=3) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
        trio.open_nursery() as nursery,
    ):
        admitted = it.gateway.admit(head)
        assert isinstance(admitted, Admitted)
        nursery.start_soon(it.gateway.serve, admitted, Incoming(head, body), client)
        await neuron.allow(2)
        await client.wait_for_pieces(2)
        assert sys.getrefcount(body) == kept_by_the_test
        await neuron.allow(9)
    assert client.finished

"""Every endpoint's way through the core: what is served, charged, refused, and how it breaks."""

import base64
import json
import struct
from pathlib import Path

import pytest

from cortexd.config.schema import Catalogue, CatalogueModel, Limit
from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import BreakKind, Broken, UsageLie
from cortexd.dialects.multipart import read_form
from cortexd.dialects.refusals import Refusal
from cortexd.dialects.surface import Document
from cortexd.gateway.endpoints import ENDPOINTS, Endpoint
from tests.support.core import Core, RecordingClient, core, key
from tests.support.fake_neuron import running, turned
from tests.support.surfaces import (
    CATALOGUE,
    MODEL,
    REQUESTS,
    VECTORS,
    Posted,
    all_round_neuron,
    code_of,
    posted,
    spoken,
)

ANTHROPIC_ENVELOPE = {"type", "error", "request_id"}
WORKING = [row for row in ENDPOINTS if row.metered]
ROWS = pytest.mark.parametrize("row", WORKING, ids=lambda row: row.path)
#: Long enough that what passes and what may be in flight is far less than what was reserved.
STREAMED_TEXT = {
    "/v1/completions": posted(prompt="Once", max_tokens=200, stream=True),
    "/v1/responses": posted(input="Once", max_output_tokens=200, stream=True),
}


async def ask(it: Core, path: str, request: Posted, **headers: str) -> RecordingClient:
    """One request, waited for."""
    named = {"content_type": request.content_type, **headers}
    return await it.ask(request.body, client=None, path=path, method="POST", **named)


@ROWS
async def test_a_request_is_served_and_costs_what_the_neuron_counted(
    row: Endpoint, tmp_path: Path
) -> None:
    """Where the neuron counts: a bare text and speech say nothing, and cost their reservation."""
    keys = [key(hard_cap=100_000)]
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=keys, catalogue=CATALOGUE) as it,
    ):
        spent = 0
        for request in REQUESTS[row.path]:
            client = await ask(it, row.path, request)
            assert (client.status, client.finished) == (200, True), client.body
            told, served = it.told[-1], neuron.counters.served.total
            assert told.charge is not None
            assert told.charge.overrun == 0
            standing = await it.standing()
            assert (standing.spent - spent, standing.reserved) == (told.charge.tokens, 0)
            assert told.charge.tokens >= served
            spent, neuron.counters.served.by_key = standing.spent, {}


@ROWS
async def test_no_honest_neuron_counts_more_than_was_reserved(
    row: Endpoint, tmp_path: Path
) -> None:
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        for request in REQUESTS[row.path]:
            await ask(it, row.path, request)
            told = it.told[-1]
            assert told.reserved is not None
            assert told.reserved >= neuron.counters.served.requests[-1].total


@ROWS
async def test_a_usage_that_is_missing_costs_the_whole_reservation(
    row: Endpoint, tmp_path: Path
) -> None:
    switches = turned(usage=UsageLie.ABSENT)
    async with (
        running(all_round_neuron(switches=switches)) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        for request in REQUESTS[row.path]:
            assert (await ask(it, row.path, request)).status == 200
            told = it.told[-1]
            assert told.charge is not None
            counts_for_itself = row.path in ("/v1/embeddings", "/v1/audio/speech")
            assert counts_for_itself or told.charge.tokens == told.reserved


@ROWS
async def test_the_client_reads_the_name_that_it_used_for_the_model(
    row: Endpoint, tmp_path: Path
) -> None:
    catalogue = Catalogue(CATALOGUE.models, {"small": MODEL, "vectors": VECTORS})
    names = {MODEL: "small", VECTORS: "vectors"}
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=catalogue) as it,
    ):
        for request in REQUESTS[row.path]:
            if request.content_type != "application/json":
                continue
            body = request.body
            for name, alias in names.items():
                body = body.replace(b'"%b"' % name.encode(), b'"%b"' % alias.encode())
            client = await ask(it, row.path, Posted(body))
            assert client.status == 200
            assert b"sim/" not in client.body
            sent = json.loads(neuron.seen[-1].body)
            assert sent["model"] in names


@ROWS
async def test_what_cannot_be_read_is_refused_and_asks_no_neuron(
    row: Endpoint, tmp_path: Path
) -> None:
    async with running(all_round_neuron()) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        before = len(neuron.seen)
        for body in (b"", b"{}", b"[1]", b"\xff", b'{"model":7}', b"[" * 100_000):
            client = await ask(it, row.path, Posted(body))
            assert client.status == 400
            assert client.error["type"] == "invalid_request_error"
            assert client.headers["x-should-retry"] == "false"
        assert len(neuron.seen) == before
        assert (await it.standing()).spent == 0


@ROWS
async def test_a_plain_answer_that_breaks_off_is_charged_in_full(
    row: Endpoint, tmp_path: Path
) -> None:
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        neuron.switches.broken = Broken(BreakKind.RESET)
        client = await ask(it, row.path, REQUESTS[row.path][0])
        assert (client.status, code_of(client)) == (502, "upstream_failed")
        told = it.told[-1]
        assert told.charge is not None
        assert (told.charge.tokens, told.charge.why) == (told.reserved, "failed")


@ROWS
async def test_an_answer_of_another_kind_is_none_and_is_charged_in_full(
    row: Endpoint, tmp_path: Path
) -> None:
    assert row.surface is not None
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        neuron.switches.refuse(200, b'{"hello":"world"}', path=row.surface.neuron_path)
        client = await ask(it, row.path, REQUESTS[row.path][0])
        assert (client.status, code_of(client)) == (502, "upstream_failed")
        assert row.surface.answer_noun in str(client.error["message"])
        told = it.told[-1]
        assert told.charge is not None
        assert (told.charge.tokens, told.charge.why) == (told.reserved, "unmetered")


SEVERAL_PROMPTS = {"/v1/embeddings", "/v1/rerank", "/rerank", "/v2/rerank"}
"""Where the first of the requests has more than one."""


@ROWS
async def test_a_neuron_that_refuses_costs_nothing_unless_it_may_mean_one_of_several_prompts(
    row: Endpoint, tmp_path: Path
) -> None:
    assert row.surface is not None
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        neuron.switches.refuse(422, path=row.surface.neuron_path)
        client = await ask(it, row.path, REQUESTS[row.path][0])
        assert client.status == 422
        assert ((await it.standing()).spent > 0) is (row.path in SEVERAL_PROMPTS)


async def test_an_endpoint_that_one_neuron_lacks_is_asked_of_the_next_and_costs_nothing(
    tmp_path: Path,
) -> None:
    """And the model is not thought to be gone there: chats go on at once."""
    without, having = all_round_neuron("a"), all_round_neuron("b")
    without.switches.refuse(404, b'{"detail":"Not Found"}', path="/v1/rerank")
    request = REQUESTS["/v1/rerank"][0]
    async with (
        running(without),
        running(having),
        core(tmp_path / "two", {"a": without.url, "b": having.url}) as it,
    ):
        for _ in range(2):
            assert (await ask(it, "/v1/rerank", request)).status == 200
        assert {told.neuron for told in it.told} == {"b"}
    async with running(without), core(tmp_path / "one", {"a": without.url}) as it:
        refused = await ask(it, "/v1/rerank", request)
        assert (refused.status, refused.error["code"]) == (400, "endpoint_not_served")
        assert refused.headers["x-should-retry"] == "false"
        assert (await it.standing()).spent == 0
        chat = REQUESTS["/v1/chat/completions"][0]
        assert (await ask(it, "/v1/chat/completions", chat)).status == 200
        assert without.counters.hits["/models/load"] == 0


@pytest.mark.parametrize("said", [b'{"detail":"Not Found"}', b"404 page not found", b""])
async def test_chats_to_a_server_of_embeddings_take_it_away_from_nobody(
    tmp_path: Path, said: bytes
) -> None:
    chat = REQUESTS["/v1/chat/completions"][0]
    neuron = all_round_neuron("a")
    neuron.switches.refuse(404, said, path="/v1/chat/completions")
    async with running(neuron), core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it:
        refused = await ask(it, "/v1/chat/completions", chat)
        assert (refused.status, refused.error["code"]) == (400, "endpoint_not_served")
        assert (await ask(it, "/v1/completions", REQUESTS["/v1/completions"][0])).status == 200
        assert neuron.counters.hits["/models/load"] == 0


async def test_a_server_that_cannot_load_keeps_what_it_lists_whatever_it_says(
    tmp_path: Path,
) -> None:
    """It is polled: if the model is gone, its list says so."""
    chat = REQUESTS["/v1/chat/completions"][0]
    neuron = all_round_neuron("a")
    neuron.switches.refuse(404, b'{"error":"this model has no chat"}', path="/v1/chat/completions")
    async with running(neuron), core(tmp_path, {"a": neuron.url}, kind="openai") as it:
        refused = await ask(it, "/v1/chat/completions", chat)
        assert (refused.status, refused.error["code"]) == (503, "no_neuron")
        assert (await ask(it, "/v1/completions", REQUESTS["/v1/completions"][0])).status == 200
        assert neuron.chat_hits == 1


async def test_all_answers_of_all_prompts_are_reserved_for(tmp_path: Path) -> None:
    async with running(all_round_neuron()) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        client = await ask(it, "/v1/completions", posted(prompt=["a", "b"], n=3, max_tokens=20))
        assert len(json.loads(client.body)["choices"]) == 6
        assert it.told[0].reserved == 2 * len('"a"') + 6 * 20


async def test_a_completion_without_a_limit_is_told_sixteen_tokens(tmp_path: Path) -> None:
    async with running(all_round_neuron()) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        await ask(it, "/v1/completions", posted(prompt="Once"))
        assert json.loads(neuron.seen[-1].body)["max_tokens"] == 16


async def test_embeddings_come_as_base64_from_an_engine_that_knows_numbers_only(
    tmp_path: Path,
) -> None:
    switches = turned(float_vectors=True)
    async with (
        running(all_round_neuron(switches=switches)) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        body = {"model": VECTORS, "input": "one"}
        floats = json.loads((await it.ask(body, path="/v1/embeddings")).body)
        coded = await it.ask({**body, "encoding_format": "base64"}, path="/v1/embeddings")
        packed = json.loads(coded.body)["data"][0]["embedding"]
    numbers = struct.unpack("<8f", base64.b64decode(packed))
    assert numbers == pytest.approx(floats["data"][0]["embedding"], abs=1e-6)


async def test_images_are_charged_by_the_units_that_the_neuron_counted(tmp_path: Path) -> None:
    request = posted(prompt="a fox", size="1024x1024", num_steps=10)
    keys = [key(hard_cap=20_000)]
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=keys) as it,
    ):
        await ask(it, "/v1/images/generations", request)
        assert (await it.standing()).spent == 10_486
        neuron.switches.usage = {"helexa_image_units": 5}
        over = await ask(it, "/v1/images/generations", request)
        assert (over.status, over.error["code"]) == (429, "insufficient_quota")
        small = posted(prompt="a fox", size="512x512", num_steps=10)
        assert (await ask(it, "/v1/images/generations", small)).status == 200
        assert (await it.standing()).spent == 10_486 + 5000


@pytest.mark.parametrize(
    ("path", "request_", "setting"),
    [
        ("/v1/audio/speech", posted(input="Hi.", voice="x"), "tokens_per_speech_character"),
        ("/v1/audio/transcriptions", spoken(), "audio_tokens_max"),
        ("/v1/images/generations", posted(prompt="a fox"), "image_steps"),
    ],
)
async def test_what_has_no_price_is_refused_for_a_cap_and_metered_without(
    tmp_path: Path, path: str, request_: Posted, setting: str
) -> None:
    keys = [key(), key("sk-free", "key-free", hard_cap=None, account_id="acct-free")]
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=keys) as it,
    ):
        refused = await ask(it, path, request_)
        assert (refused.status, refused.error["code"]) == (400, "unsupported_parameter")
        assert setting in str(refused.error["message"])
        before = len(neuron.seen)
        served = await ask(it, path, request_, authorization="Bearer sk-free")
        assert (served.status, len(neuron.seen)) == (200, before + 1)
        assert it.told[-1].charge is not None
        assert it.told[-1].charge.tokens > 0


async def test_a_transcription_goes_on_as_a_form_of_our_own(tmp_path: Path) -> None:
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        await ask(it, "/v1/audio/transcriptions", spoken())
        request = neuron.seen[-1]
        parts = read_form(request.body, request.header(b"content-type") or "")
        assert [part.name for part in parts] == ["model", "file"]


async def test_audio_and_text_come_with_their_own_content_type(tmp_path: Path) -> None:
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        speech = await ask(it, "/v1/audio/speech", REQUESTS["/v1/audio/speech"][0])
        text = await ask(it, "/v1/audio/transcriptions", REQUESTS["/v1/audio/transcriptions"][1])
        assert speech.headers["content-type"] == "audio/wav"
        assert speech.body.startswith(b"RIFF")
        assert text.headers["content-type"] == "text/plain; charset=utf-8"
        assert speech.headers["content-length"] == str(len(speech.body))


@pytest.mark.parametrize("path", STREAMED_TEXT)
@pytest.mark.parametrize(
    "kind", [BreakKind.EOF, BreakKind.END, BreakKind.ERROR_FRAME, BreakKind.GARBAGE]
)
async def test_a_stream_that_breaks_ends_in_an_error_and_is_charged_in_full(
    tmp_path: Path, path: str, kind: BreakKind
) -> None:
    """Only chats are promised a token per event, so nothing less is proven here."""
    async with running(all_round_neuron()) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        neuron.switches.broken = Broken(kind, after_tokens=3)
        client = await ask(it, path, STREAMED_TEXT[path])
        assert client.status == 200
        last = json.loads(client.events()[-1])
        error = last["error"] if "error" in last else last["response"]["error"]
        assert error["code"] == "upstream_failed"
        told = it.told[-1]
        assert told.charge is not None
        assert (told.charge.tokens, told.charge.why) == (told.reserved, "failed")


@pytest.mark.parametrize("path", STREAMED_TEXT)
async def test_a_stream_past_its_reserved_output_is_cut(tmp_path: Path, path: str) -> None:
    switches = turned(ignore_max_tokens=True, reply_tokens=600, usage=UsageLie.ABSENT)
    async with (
        running(all_round_neuron(switches=switches)) as neuron,
        core(tmp_path, {"a": neuron.url}) as it,
    ):
        client = await ask(it, path, STREAMED_TEXT[path])
        told = it.told[-1]
        assert told.charge is not None
        assert (told.charge.tokens, told.charge.why) == (told.reserved, "cut")
        assert (b"max_output_tokens" in client.body) or (b'"length"' in client.body)
        assert neuron.counters.tokens.count < 600


@pytest.mark.parametrize("path", STREAMED_TEXT)
async def test_the_settlement_is_in_the_books_before_the_end_is_read(
    tmp_path: Path, path: str
) -> None:
    spent_at_the_end: list[int] = []
    async with running(all_round_neuron()) as neuron, core(tmp_path, {"a": neuron.url}) as it:

        class Asking(RecordingClient):
            async def finish(self, data: bytes = b"") -> None:
                assert b"[DONE]" not in self.body
                assert b"response.completed" not in self.body
                spent_at_the_end.append((await it.standing()).spent)
                await super().finish(data)

        client = Asking()
        await it.ask(STREAMED_TEXT[path].body, path=path, client=client)
        assert client.finished
        assert spent_at_the_end == [neuron.counters.served.total]


async def test_a_prompt_that_cannot_fit_is_refused_before_any_neuron_is_asked(
    tmp_path: Path,
) -> None:
    """What merely may not fit is left to the neuron, which counts exactly."""
    models = [SimulatedModel(MODEL, context=64)]
    catalogue = Catalogue((CatalogueModel(MODEL, limit=Limit(context=64)),))
    keys = [key(hard_cap=None)]
    too_long = "x" * 128 * 65
    async with (
        running(SimulatedNeuron(models=models)) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=keys, catalogue=catalogue) as it,
    ):
        before = len(neuron.seen)
        for path, request in {
            "/v1/chat/completions": posted(messages=[{"role": "user", "content": too_long}]),
            "/v1/completions": posted(prompt=[[1], [1] * 65]),
            "/v1/responses": posted(input=too_long),
        }.items():
            client = await ask(it, path, request)
            assert (client.status, client.error["code"]) == (400, "context_length_exceeded")
            assert str(client.error["message"]).startswith(
                "This model's maximum context length is 64 tokens. However, your messages "
                "resulted in 65 tokens"
            )
        assert len(neuron.seen) == before
        unsure = await ask(it, "/v1/responses", posted(input=too_long[: 128 * 64]))
        assert (unsure.status, len(neuron.seen)) == (400, before + 1)


async def test_a_template_around_each_prompt_is_learned_per_prompt(tmp_path: Path) -> None:
    request = Posted(json.dumps({"model": VECTORS, "input": ["aa", "bb"]}).encode())
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, keys=[key(hard_cap=10_000)]) as it,
    ):
        neuron.switches.refuse(
            200,
            b'{"data":[{"embedding":[1]}],"usage":{"prompt_tokens":40,"total_tokens":40}}',
            path="/v1/embeddings",
        )
        await ask(it, "/v1/embeddings", request)
        await ask(it, "/v1/embeddings", request)
        first, second = (told.reserved for told in it.told)
        assert (first, second) == (12, 40)


def test_every_path_of_work_speaks_its_own_dialect_when_it_refuses() -> None:
    for row in WORKING:
        assert row.surface is not None
        refusal = row.surface.understand(Document(b"{}"), forward_fields=frozenset())
        assert isinstance(refusal, Refusal)
        body = json.loads(row.render(refusal, request_id="r").body)
        assert set(body) == ({"error"} if row.path != "/v1/messages" else ANTHROPIC_ENVELOPE)

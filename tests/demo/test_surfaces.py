"""A simulated neuron's other endpoints: completions, responses, rerank, images, audio, speech."""

import base64
import wave
from io import BytesIO

import httpx
import pytest

from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.neuron import SimulatedNeuron
from cortexd.demo.switches import BreakKind, Broken, UsageLie
from cortexd.dialects.multipart import Part, write_form
from tests.demo.asking import MODEL, call, events, has_choice
from tests.support.fake_neuron import fake_neuron, running, turned

COMPLETION = {"model": MODEL, "prompt": "Once upon a", "max_tokens": 5}
RESPONSE = {"model": MODEL, "input": "hi", "max_output_tokens": 5, "store": False}


def all_round() -> SimulatedNeuron:
    """A neuron with a model for everything that is neither chat nor embedding."""
    serves = ("rerank", "image", "transcription", "speech")
    return SimulatedNeuron(models=[SimulatedModel(MODEL, capabilities=serves)])


def typed(text: str) -> list[dict[str, object]]:
    """The events of a response; each is named as its type says."""
    found: list[dict[str, object]] = []
    for block in text.split("\n\n"):
        name, _, data = block.partition("\n")
        if data:
            [event] = events(data + "\n\n")
            assert name == f"event: {event['type']}"
            found.append(event)
    return found


async def test_a_completion_streams_its_text_and_ends_in_usage_and_done() -> None:
    async with fake_neuron() as neuron:
        plain = (await call(neuron, "POST", "/v1/completions", COMPLETION)).json()
        stream = await call(neuron, "POST", "/v1/completions", {**COMPLETION, "stream": True})

    *chunks, done = events(stream.text)
    assert done == "[DONE]"
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks if has_choice(chunk))
    assert plain["choices"][0] == {
        "index": 0,
        "text": text,
        "logprobs": None,
        "finish_reason": "length",
    }
    assert plain["object"] == chunks[0]["object"] == "text_completion"
    assert plain["usage"]["completion_tokens"] == chunks[-1]["usage"]["completion_tokens"] == 5


async def test_several_prompts_get_several_answers_each_and_one_usage() -> None:
    body = {**COMPLETION, "prompt": ["a b", "c"], "n": 2}
    async with fake_neuron() as neuron:
        plain = (await call(neuron, "POST", "/v1/completions", body)).json()
        stream = await call(neuron, "POST", "/v1/completions", {**body, "stream": True})
        served = neuron.counters.served.total

    assert [choice["index"] for choice in plain["choices"]] == [0, 1, 2, 3]
    assert plain["usage"] | {"helexa_timing": 0} == {
        "prompt_tokens": 5,
        "completion_tokens": 20,
        "total_tokens": 25,
        "helexa_timing": 0,
    }
    ended = [
        chunk["choices"][0]["index"]
        for chunk in events(stream.text)[:-1]
        if has_choice(chunk) and chunk["choices"][0]["finish_reason"]
    ]
    assert ended == [0, 1, 2, 3]
    assert served == 50


async def test_token_ids_are_a_prompt_and_a_suffix_is_counted() -> None:
    async with fake_neuron() as neuron:
        ids = await call(neuron, "POST", "/v1/completions", {**COMPLETION, "prompt": [5, 6, 7]})
        body = {**COMPLETION, "prompt": [5, 6, 7], "suffix": "end."}
        filled = await call(neuron, "POST", "/v1/completions", body)

    assert ids.json()["usage"]["prompt_tokens"] == 3
    assert filled.json()["usage"]["prompt_tokens"] == 3 + 3 + 2


async def test_a_response_streams_typed_events_in_order_and_no_done() -> None:
    async with fake_neuron() as neuron:
        plain = (await call(neuron, "POST", "/v1/responses", RESPONSE)).json()
        stream = await call(neuron, "POST", "/v1/responses", {**RESPONSE, "stream": True})

    found = typed(stream.text)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    kinds = [str(event["type"]).removeprefix("response.") for event in found]
    assert kinds[:4] == ["created", "in_progress", "output_item.added", "content_part.added"]
    assert kinds[4:-4] == ["output_text.delta"] * 5
    assert kinds[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    last = found[-1]["response"]
    assert isinstance(last, dict)
    assert last["output"][0]["content"] == plain["output"][0]["content"]
    assert (last["usage"]["output_tokens"], plain["status"]) == (5, "incomplete")


async def test_a_response_that_runs_to_its_end_is_completed() -> None:
    async with fake_neuron(reply_tokens=3) as neuron:
        plain = (await call(neuron, "POST", "/v1/responses", RESPONSE)).json()
        stream = await call(neuron, "POST", "/v1/responses", {**RESPONSE, "stream": True})
    assert (plain["status"], plain["incomplete_details"]) == ("completed", None)
    assert typed(stream.text)[-1]["type"] == "response.completed"


async def test_a_response_can_fail_die_or_go_unnumbered() -> None:
    body = {**RESPONSE, "stream": True}
    async with fake_neuron(broken=Broken(BreakKind.ERROR_FRAME, after_tokens=2)) as neuron:
        failed = typed((await call(neuron, "POST", "/v1/responses", body)).text)
        neuron.switches.broken = Broken(BreakKind.EOF, after_tokens=2)
        with pytest.raises(httpx.RemoteProtocolError):
            await call(neuron, "POST", "/v1/responses", body)
        neuron.switches.broken = None
        neuron.switches.numbered_events = False
        bare = typed((await call(neuron, "POST", "/v1/responses", body)).text)
    assert failed[-1]["type"] == "response.failed"
    assert not [event for event in bare if "sequence_number" in event]


async def test_what_would_have_to_be_remembered_is_refused_by_the_neuron_too() -> None:
    async with fake_neuron() as neuron:
        stored = await call(neuron, "POST", "/v1/responses", {**RESPONSE, "store": True})
    assert stored.status_code == 422


async def test_rerank_orders_documents_and_counts_the_query_with_each() -> None:
    body = {"model": MODEL, "query": "one", "documents": ["two", {"text": "one"}], "top_n": 1}
    async with running(all_round()) as neuron:
        reply = (await call(neuron, "POST", "/v1/rerank", body)).json()
    [best] = reply["results"]
    assert (best["index"], best["document"]) == (1, {"text": "one"})
    assert best["relevance_score"] == pytest.approx(1)
    assert reply["usage"]["total_tokens"] == 2 * (1 + 1 + 4)


async def test_an_image_says_how_many_units_it_took() -> None:
    body = {"model": MODEL, "prompt": "a fox", "size": "1024x512", "num_steps": 10}
    async with running(all_round()) as neuron:
        plain = (await call(neuron, "POST", "/v1/images/generations", body)).json()
        body |= {"negative_prompt": "blur"}
        twice = (await call(neuron, "POST", "/v1/images/generations", body)).json()
        odd = await call(neuron, "POST", "/v1/images/generations", body | {"size": "10x10"})
    assert base64.b64decode(plain["data"][0]["b64_json"]).startswith(b"\x89PNG")
    units = plain["usage"]["helexa_image_units"]
    assert units == pytest.approx(1024 * 512 * 10 / 1e6)
    assert twice["usage"]["helexa_image_units"] == pytest.approx(2 * units)
    assert (odd.status_code, odd.json()["error"]["code"]) == (400, "invalid_size")


async def test_a_transcription_reads_a_form_and_counts_its_audio() -> None:
    file = Part("file", b"\x00" * 1600, "a.wav", "audio/wav")
    async with running(all_round()) as neuron, httpx.AsyncClient(trust_env=False) as client:
        texts = []
        for extra in ([], [Part("response_format", b"text")]):
            content_type, body = write_form([file, Part("model", MODEL.encode()), *extra])
            reply = await client.post(
                f"{neuron.url}/v1/audio/transcriptions",
                content=body,
                headers={"content-type": content_type},
            )
            texts.append(reply)
    assert texts[0].json()["usage"]["total_tokens"] == 10 + 12
    assert texts[0].json()["text"] == texts[1].text != ""


async def test_speech_is_a_wav_that_is_longer_for_a_longer_text() -> None:
    async with running(all_round()) as neuron:
        lengths = []
        for text in ("hi", "hi there"):
            body = {"model": MODEL, "input": text, "voice": "x"}
            reply = await call(neuron, "POST", "/v1/audio/speech", body)
            assert reply.headers["content-type"] == "audio/wav"
            with wave.open(BytesIO(reply.content)) as sound:
                lengths.append(sound.getnframes())
        assert lengths[0] * 4 == lengths[1] > 0
        assert neuron.counters.served.total == len("hi") + len("hi there")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {"query": "a", "documents": ["b"]}),
        ("/v1/images/generations", {"prompt": "a"}),
        ("/v1/audio/speech", {"input": "a", "voice": "b"}),
    ],
)
async def test_a_model_that_only_chats_serves_no_media(path: str, body: dict[str, object]) -> None:
    async with fake_neuron() as neuron:
        reply = await call(neuron, "POST", path, {"model": MODEL, **body})
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "wrong_modality")


@pytest.mark.parametrize(
    ("usage", "told"), [(UsageLie.ABSENT, None), (UsageLie.NULL, None), ({"total_tokens": 1}, 1)]
)
async def test_media_can_lie_about_their_usage(usage: object, told: object) -> None:
    neuron = all_round()
    neuron.switches.usage = turned(usage=usage).usage
    body = {"model": MODEL, "query": "a", "documents": ["b"]}
    async with running(neuron):
        reply = (await call(neuron, "POST", "/v1/rerank", body)).json()
    assert (reply.get("usage") or {}).get("total_tokens") == told


async def test_every_inference_path_can_be_made_to_fail() -> None:
    async with fake_neuron(silent=False, broken=Broken(BreakKind.RESET)) as neuron:
        for path in ("/v1/completions", "/v1/responses", "/v1/rerank", "/v1/audio/speech"):
            with pytest.raises(httpx.ReadError):
                await call(neuron, "POST", path, {"model": MODEL})

"""A prompt is its caller's: what reaches a neuron is what was posted, on every endpoint.

Byte for byte where a neuron is spoken to in the client's own dialect; the same texts in the same
order where a chat is made of it. Nothing is added, merged, moved or normalised.
"""

import json
from pathlib import Path

import msgspec
import pytest

from cortexd.demo.http import Request
from cortexd.dialects.multipart import Part, read_form
from cortexd.gateway.endpoints import ENDPOINTS, Endpoint
from tests.support.core import Core, core
from tests.support.fake_neuron import running
from tests.support.surfaces import CATALOGUE, MODEL, all_round_neuron, spoken

#: Texts as JSON that a careless reader would write in another way.
TEXTS = {
    "space": rb'"  two  spaces,\ta tab, an end \r\n"',
    "escapes": rb'"\u0041\/\u00e9 \b\f \"quoted\" \\u0041"',
    "controls": rb'"\u0000\u001f\u007f\u2028\ufeff"',
    "not normal": '"e\u0301 \u212b \ufb01 \ufdfa"'.encode(),
    "beyond the plane": '"\U0001d1c0 \\ud83d\\ude00 \U0010ffff"'.encode(),
    "marks": b'"<|im_start|>system\\n<s>[INST] {{ messages }} </s>"',
    "nothing": b'""',
}
#: Chats whose parts somebody might be tempted to tidy up.
CHATS = {
    "a user alone": b'[{"role":"user","content":"hi"}]',
    "odd space": b'[ {"role" :\t"user",\r\n "content":"hi"\n} ]',
    "systems in the middle": (
        b'[{"role":"user","content":"a"},{"role":"system","content":"b"},'
        b'{"role":"developer","content":"c"},{"role":"system","content":"d"}]'
    ),
    "one after the other": b'[{"role":"user","content":"a"},{"role":"user","content":"b"}]',
    "keys in another order": b'[{"content":"hi","name":"z","role":"user"}]',
    "numbers": (
        b'[{"role":"user","content":"hi","x":123456789012345678901234567890,"y":1.00,"z":1e5}]'
    ),
    "null and empty": b'[{"role":"assistant","content":null},{"role":"user","content":[]}]',
    "parts": b'[{"role":"user","content":[{"type":"text","text":"a"},{"text":"b","type":"text"}]}]',
    **{name: b'[{"role":"user","content":%b}]' % text for name, text in TEXTS.items()},
}
FIELDS = {
    "/v1/completions": ("prompt", "suffix"),
    "/v1/responses": ("input", "instructions"),
    "/v1/embeddings": ("input",),
    "/v1/rerank": ("query",),
    "/rerank": ("query",),
    "/v2/rerank": ("query",),
    "/v1/images/generations": ("prompt", "negative_prompt"),
    "/v1/audio/speech": ("input", "instructions"),
}
"""Path -> its fields that hold a text for a model."""

_RERANK = {"query": b'"a"', "documents": b'["b"]'}
NEEDED = {
    "/v1/completions": {"prompt": b'"a"'},
    "/v1/responses": {"input": b'"a"'},
    "/v1/embeddings": {"input": b'"a"'},
    "/v1/rerank": _RERANK,
    "/rerank": _RERANK,
    "/v2/rerank": _RERANK,
    "/v1/images/generations": {"prompt": b'"a"', "num_steps": b"1", "size": b'"16x16"'},
    "/v1/audio/speech": {"input": b'"a"', "voice": b'"alloy"'},
}
"""Path -> what a request cannot do without."""

OURS = {"model", "max_tokens", "max_output_tokens", "stream", "store", "size", "response_format"}
"""What cortexd says of its own accord."""

LISTS = [
    ("/v1/completions", "prompt", b'[ "a",\t"\\u0062" ]'),
    ("/v1/completions", "prompt", b"[[1, 2],[3 ]]"),
    ("/v1/embeddings", "input", b'["b", "a","b" ]'),
    ("/v1/rerank", "documents", b'["b", {"text": "\\u0061"}]'),
    ("/v1/responses", "input", b'[ {"role":"system","content":"b"},{"role":"user","content":"a"}]'),
]
TWICE = [
    (
        "/v1/chat/completions",
        "messages",
        b'[{"role":"system","role":"user","content":"first","content":"last"}]',
        b'[{"role":"user","content":"last"}]',
    ),
    (
        "/v1/responses",
        "input",
        b'[{"role":"user","content":"first","content":"last"}]',
        b'[{"role":"user","content":"last"}]',
    ),
]


async def sent(it: Core, path: str, body: bytes) -> int | None:
    """The status of one request."""
    return (await it.ask(body, path=path)).status


def field(request: Request, name: str) -> bytes:
    """A field of a JSON body as it was written."""
    return bytes(msgspec.json.decode(request.body, type=dict[str, msgspec.Raw])[name])


def with_fields(**fields: bytes) -> bytes:
    """A JSON body of values that are written already."""
    named = (b'"%b": %b' % (name.encode(), text) for name, text in fields.items())
    return b'{"model":"%b", %b}' % (MODEL.encode(), b", ".join(named))


def test_every_endpoint_for_work_has_its_prompts_here() -> None:
    others = {"/v1/chat/completions", "/v1/messages", "/v1/audio/transcriptions"}
    assert {row.path for row in ENDPOINTS if row.metered} == FIELDS.keys() | others


@pytest.mark.parametrize("messages", CHATS.values(), ids=CHATS.keys())
async def test_a_chat_arrives_as_it_was_written(tmp_path: Path, messages: bytes) -> None:
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        await sent(it, "/v1/chat/completions", with_fields(messages=messages))
        assert field(neuron.seen[-1], "messages") == messages


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in FIELDS.items() for name in names]
)
async def test_a_text_arrives_as_it_was_written(tmp_path: Path, path: str, name: str) -> None:
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        for text in TEXTS.values():
            before = len(neuron.seen)
            fields = {**NEEDED[path], name: text}
            status = await sent(it, path, with_fields(**fields))
            if len(neuron.seen) == before:
                assert (status, text) == (400, TEXTS["nothing"]), "only nothing is no prompt"
                continue
            assert field(neuron.seen[-1], name) == text
            assert json.loads(neuron.seen[-1].body).keys() <= OURS | fields.keys()


@pytest.mark.parametrize(("path", "name", "value"), LISTS)
async def test_a_list_arrives_as_it_was_written(
    tmp_path: Path, path: str, name: str, value: bytes
) -> None:
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        await sent(it, path, with_fields(**{**NEEDED[path], name: value}))
        assert field(neuron.seen[-1], name) == value


@pytest.mark.parametrize(("path", "name", "value", "told"), TWICE, ids=["chat", "responses"])
async def test_what_is_said_twice_is_told_once_and_the_last_counts(
    tmp_path: Path, path: str, name: str, value: bytes, told: bytes
) -> None:
    """Readers disagree on which of two equal keys counts, so that a neuron never has to choose."""
    async with running(all_round_neuron()) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        twice = with_fields(**{name: value}).replace(b'", ', b'", "%b": 1, ' % name.encode(), 1)
        await sent(it, path, twice)
        assert neuron.seen[-1].body.count(b'"%b"' % name.encode()) == 1
        assert field(neuron.seen[-1], name) == told


@pytest.mark.parametrize("row", [row for row in ENDPOINTS if row.metered], ids=lambda row: row.path)
@pytest.mark.parametrize("half", [rb'"\ud800"', rb'"\ude00x"', b'"\xff"', b'"\xed\xa0\x80"'])
async def test_half_a_character_is_refused_and_reaches_no_neuron(
    tmp_path: Path, row: Endpoint, half: bytes
) -> None:
    """No two readers agree on it: one would count another text than the other generates from."""
    path, is_form = row.path, row.path == "/v1/audio/transcriptions"
    if is_form:
        body = spoken(Part("prompt", half)).body
    else:
        chat = b'[{"role":"user","content":%b}]' % half
        halves = dict.fromkeys({"query", "input", "prompt"} & NEEDED.get(path, {}).keys(), half)
        body = with_fields(**{"messages": chat, **NEEDED.get(path, {}), **halves})
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        before = len(neuron.seen)
        kind = spoken().content_type if is_form else "application/json"
        client = await it.ask(body, path=path, content_type=kind)
        assert client.status == 400
        assert client.error["type"] == "invalid_request_error"
        assert len(neuron.seen) == before


async def test_a_recording_and_its_prompt_arrive_byte_for_byte(tmp_path: Path) -> None:
    prompt = '  e\u0301 \u212b "quoted"\r\n--boundary\r\n\U0001d1c0 '.encode()
    recording = bytes(range(256)) * 3 + b"\r\n--" + b"\r\n\r\n"
    posted = spoken(Part("prompt", prompt))
    body = posted.body.replace(b"RIFF" + bytes(1600), recording)
    async with (
        running(all_round_neuron()) as neuron,
        core(tmp_path, {"a": neuron.url}, catalogue=CATALOGUE) as it,
    ):
        await it.ask(body, path="/v1/audio/transcriptions", content_type=posted.content_type)
        kind = neuron.seen[-1].header(b"content-type")
        assert kind is not None
        parts = read_form(neuron.seen[-1].body, kind)
    arrived = {part.name: part.data for part in parts}
    assert (arrived["file"], arrived["prompt"]) == (recording, prompt)


async def test_a_message_becomes_a_chat_of_the_same_texts(tmp_path: Path) -> None:
    """One text of one block at a time, in every place where a text can stand."""
    async with running(all_round_neuron()) as neuron, core(tmp_path, {"a": neuron.url}) as it:
        for raw in TEXTS.values():
            text = json.loads(raw)
            block = [{"type": "text", "text": text}]
            turns = [
                {"role": "user", "content": text},
                {"role": "assistant", "content": text},
                {"role": "user", "content": block},
                {"role": "assistant", "content": [{"type": "thinking", "thinking": text}, *block]},
                {
                    "role": "user",
                    "content": [{"type": "tool_result", "tool_use_id": "t", "content": text}],
                },
            ]
            plain = {"role": "user", "content": text}
            expected: list[dict[str, object]] = [
                plain,
                {"role": "assistant", "content": text},
                plain,
                {"role": "assistant", "content": text},
                {"role": "tool", "tool_call_id": "t", "content": text},
            ]
            if text:
                expected[3]["reasoning_content"] = text
            await it.ask({"model": MODEL, "max_tokens": 9, "messages": turns}, path="/v1/messages")
            assert json.loads(neuron.seen[-1].body)["messages"] == expected
            body = {"model": MODEL, "max_tokens": 9, "system": text, "messages": turns[:1]}
            await it.ask(body, path="/v1/messages")
            leading = [{"role": "system", "content": text}] if text else []
            assert json.loads(neuron.seen[-1].body)["messages"] == [*leading, plain]

"""Transcriptions: a form in any order, a declared price, and a text back."""

import json

import pytest

from cortexd.dialects.multipart import Part, read_form, write_form
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.surface import Document, Target
from cortexd.dialects.transcriptions import Transcriptions
from cortexd.dialects.upper_bound import ModelLimits
from cortexd.dialects.usage import Usage
from tests.dialects.surfaces import UNKNOWN, asked_of, bound_of, refused, told, understood

TRANSCRIPTIONS = Transcriptions()
FILE = Part("file", b"RIFF....", "hello.wav", "audio/wav")
DECLARED = ModelLimits(None, None, None, audio_tokens_max=3000)


def posted(*parts: Part) -> Document:
    content_type, body = write_form(parts)
    return Document(body, content_type)


def form(**texts: str) -> Document:
    return posted(FILE, *(Part(name, text.encode()) for name, text in texts.items()))


def test_the_order_of_the_parts_means_nothing() -> None:
    first = understood(TRANSCRIPTIONS, posted(Part("model", b"m"), FILE))
    last = understood(TRANSCRIPTIONS, posted(FILE, Part("model", b"m")))
    assert first == last
    assert first.asked.model == "m"


def test_audio_costs_what_the_operator_declares_and_text_its_bytes() -> None:
    bound = bound_of(understood(TRANSCRIPTIONS, form(model="m", prompt="names")), DECLARED)
    assert (bound.prompt_tokens, bound.output_tokens) == (3000 + len("names"), 0)


def test_audio_that_nobody_bounds_is_refused_for_a_cap_alone() -> None:
    request = understood(TRANSCRIPTIONS, form(model="m"))
    refusal = request.bound(UNKNOWN, capped=True)
    assert isinstance(refusal, Refusal)
    assert (refusal.kind, refusal.param) == (RefusalKind.UNSUPPORTED_PARAMETER, "file")
    assert "audio_tokens_max" in refusal.message
    assert bound_of(request, capped=False).total >= len(FILE.data)


def test_the_neuron_gets_a_form_of_our_own_with_the_parts_that_are_listed() -> None:
    document = form(model="m", language="en", temperature="0", keep_alive="1h")
    request = understood(TRANSCRIPTIONS, document)
    sent = request.write(DECLARED, Target("there", 0))
    assert read_form(sent.body, sent.content_type) == [
        Part("model", b"there"),
        Part("language", b"en"),
        Part("temperature", b"0"),
        FILE,
    ]
    assert request.asked.dropped == ("keep_alive",)
    assert "keep_alive" not in asked_of(TRANSCRIPTIONS, document, "keep_alive").dropped


def test_granularities_may_come_several_times() -> None:
    name = "timestamp_granularities[]"
    document = posted(FILE, Part("model", b"m"), Part(name, b"word"), Part(name, b"segment"))
    sent = understood(TRANSCRIPTIONS, document).write(DECLARED, Target("there", 0))
    names = [part.name for part in read_form(sent.body, sent.content_type)]
    assert names == ["model", name, name, "file"]


@pytest.mark.parametrize(
    ("document", "kind", "param"),
    [
        (Document(b"{}", "application/json"), RefusalKind.INVALID_FORM, None),
        (Document(b"", "multipart/form-data; boundary=x"), RefusalKind.INVALID_FORM, None),
        (form(), RefusalKind.MISSING_REQUIRED_PARAMETER, "model"),
        (posted(Part("model", b"m")), RefusalKind.MISSING_REQUIRED_PARAMETER, "file"),
        (
            posted(Part("model", b"m"), Part("file", b"")),
            RefusalKind.MISSING_REQUIRED_PARAMETER,
            "file",
        ),
        (
            posted(Part("model", b"m"), FILE, FILE),
            RefusalKind.MISSING_REQUIRED_PARAMETER,
            "file",
        ),
        (
            posted(Part("model", b"m"), Part("model", b"n"), FILE),
            RefusalKind.INVALID_PARAMETER,
            "model",
        ),
        (posted(Part("model", b"\xff"), FILE), RefusalKind.INVALID_PARAMETER, "model"),
        (form(model="m", prompt="x" * 70_000), RefusalKind.INVALID_PARAMETER, "prompt"),
        (
            form(model="m", response_format="xml"),
            RefusalKind.INVALID_PARAMETER,
            "response_format",
        ),
        (form(model="m", stream="true"), RefusalKind.UNSUPPORTED_PARAMETER, "stream"),
    ],
)
def test_what_cannot_be_read_is_refused(
    document: Document, kind: RefusalKind, param: str | None
) -> None:
    refusal = refused(TRANSCRIPTIONS, document)
    assert (refusal.kind, refusal.param) == (kind, param)


BY_THE_SECOND = ModelLimits(None, None, None, tokens_per_audio_second=10)


@pytest.mark.parametrize(
    ("usage", "limits", "believed"),
    [
        ({"type": "tokens", "total_tokens": 40}, UNKNOWN, Usage(40, 0)),
        ({"type": "duration", "seconds": 3.21}, BY_THE_SECOND, Usage(33, 0)),
        ({"type": "duration", "seconds": 3.21}, UNKNOWN, None),
        ({"type": "duration", "seconds": -1}, BY_THE_SECOND, None),
        ({"type": "duration", "seconds": 1e300}, BY_THE_SECOND, None),
        ({"type": "duration", "seconds": "3"}, BY_THE_SECOND, None),
        ({"total_tokens": 0}, UNKNOWN, None),
        (None, UNKNOWN, None),
    ],
)
def test_a_transcription_costs_what_the_engine_counted(
    usage: object, limits: ModelLimits, believed: Usage | None
) -> None:
    body = json.dumps({"text": "hi", "usage": usage}).encode()
    request = understood(TRANSCRIPTIONS, form(model="m"))
    reply = told(request.read(Document(body), limits))
    assert (reply.body, reply.usage) == (body, believed)


@pytest.mark.parametrize("name", ["text", "srt", "vtt"])
def test_a_bare_text_is_passed_on_and_costs_what_was_declared(name: str) -> None:
    request = understood(TRANSCRIPTIONS, form(model="m", response_format=name))
    reply = told(request.read(Document("Grüße".encode(), "text/plain"), UNKNOWN))
    assert (reply.body, reply.usage) == ("Grüße".encode(), None)
    assert reply.content_type == "text/plain; charset=utf-8"
    assert request.read(Document(b"\xff"), UNKNOWN) is None


@pytest.mark.parametrize("body", [b"", b"hi", b"[]", b'{"text":7}', b'{"error":{}}'])
def test_what_has_no_text_is_no_answer(body: bytes) -> None:
    request = understood(TRANSCRIPTIONS, form(model="m"))
    assert request.read(Document(body), UNKNOWN) is None

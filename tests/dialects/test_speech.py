"""Speech: priced by its characters, answered with whatever audio came."""

import pytest

from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.speech import Speech
from cortexd.dialects.surface import Document
from cortexd.dialects.upper_bound import ModelLimits
from cortexd.dialects.usage import Usage
from tests.dialects.surfaces import UNKNOWN, bound_of, refused, told, understood, written

SPEECH = Speech()
PRICED = ModelLimits(None, None, None, tokens_per_speech_character=3)


def asked_with(**fields: object) -> dict[str, object]:
    return {"model": "m", "input": "Grüße", "voice": "alloy", **fields}


@pytest.mark.parametrize(
    ("fields", "tokens"), [({}, 15), ({"instructions": "low"}, 24), ({"speed": 2}, 15)]
)
def test_a_text_costs_its_characters_at_the_operators_price(
    fields: dict[str, object], tokens: int
) -> None:
    request = understood(SPEECH, asked_with(**fields))
    bound = bound_of(request, PRICED)
    assert (bound.prompt_tokens, bound.output_tokens) == (tokens, 0)
    reply = told(request.read(Document(b"RIFF", "audio/wav"), PRICED))
    assert reply.usage == Usage(tokens, 0)


def test_speech_without_a_price_is_refused_for_a_cap_alone() -> None:
    request = understood(SPEECH, asked_with())
    refusal = request.bound(UNKNOWN, capped=True)
    assert isinstance(refusal, Refusal)
    assert refusal.kind is RefusalKind.UNSUPPORTED_PARAMETER
    assert "tokens_per_speech_character" in refusal.message
    assert bound_of(request, capped=False).total == len("Grüße")


def test_the_neuron_gets_the_text_and_no_private_field() -> None:
    body = asked_with(response_format="wav", speed=1.5, stream_format="sse")
    request = understood(SPEECH, body)
    assert written(request) == {
        "model": "there",
        "input": "Grüße",
        "voice": "alloy",
        "response_format": "wav",
        "speed": 1.5,
    }
    assert request.asked.dropped == ("stream_format",)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": ""}, "input"),
        ({"input": ["a"]}, "input"),
        ({"response_format": "midi"}, "response_format"),
        ({"instructions": 7}, "instructions"),
    ],
)
def test_what_cannot_be_spoken_is_refused(fields: dict[str, object], param: str) -> None:
    refusal = refused(SPEECH, asked_with(**fields))
    assert (refusal.kind, refusal.param) == (RefusalKind.INVALID_PARAMETER, param)


@pytest.mark.parametrize(
    ("sent", "response_format", "received"),
    [
        ("audio/wav", None, "audio/wav"),
        ("audio/L16; rate=24000", None, "audio/L16; rate=24000"),
        ("application/octet-stream", None, "audio/mpeg"),
        ("application/octet-stream", "opus", "audio/ogg"),
        ("audio/wav\r\nx-evil: 1", "flac", "audio/flac"),
        ("", "pcm", "audio/pcm"),
    ],
)
def test_audio_is_called_what_it_is(sent: str, response_format: str | None, received: str) -> None:
    request = understood(SPEECH, asked_with(response_format=response_format))
    assert told(request.read(Document(b"sound", sent), PRICED)).content_type == received


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"", "audio/wav"), (b'{"error":{}}', "application/json"), (b"oops", "text/html")],
)
def test_what_is_no_audio_is_no_answer(body: bytes, content_type: str) -> None:
    assert understood(SPEECH, asked_with()).read(Document(body, content_type), PRICED) is None

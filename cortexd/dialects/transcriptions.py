"""OpenAI's transcriptions: a piece of audio in a form, its text back.

Owns `POST /v1/audio/transcriptions`. Refuses to know keys, budgets and neurons.
Source: https://platform.openai.com/docs/api-reference/audio/createTranscription.

How long a piece of audio lasts is not known before it is decoded, so it is bounded by what the
operator declares (`audio_tokens_max`), and charged by what the engine says of it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.asked import Asked, PromptSize
from cortexd.dialects.body import Unfit, as_count, invalid, missing, printable, unsupported
from cortexd.dialects.forwarding import DROPPED_NAMES_MAX
from cortexd.dialects.json_text import with_model
from cortexd.dialects.multipart import NoForm, Part, read_form, write_form
from cortexd.dialects.refusals import Refusal, RefusalKind, Rendered, render
from cortexd.dialects.surface import JSON, Document, PlainReply, Watcher
from cortexd.dialects.upper_bound import Bound
from cortexd.dialects.usage import TOKENS_LIMIT, Usage

if TYPE_CHECKING:
    from cortexd.dialects.surface import Target
    from cortexd.dialects.upper_bound import ModelLimits

FORWARDED = frozenset(
    {
        "file",
        "language",
        "prompt",
        "response_format",
        "temperature",
        "timestamp_granularities",
        "timestamp_granularities[]",
    }
)
"""Parts that a neuron gets, beside its own name for the model."""

FORMATS = ("json", "verbose_json", "text", "srt", "vtt")

TEXT_BYTES_MAX = 65_536

SECONDS_LIMIT = 10_000_000
"""First length of a piece of audio that is not believed."""

_READ_HERE = ("model", "stream")
_TEXT_CONTENT = "text/plain; charset=utf-8"
_VALUE = msgspec.json.Decoder()


class TranscriptionRequest(msgspec.Struct, frozen=True):
    """A transcription that was understood. `parts` are those that go on."""

    asked: Asked
    parts: tuple[Part, ...]
    response_format: str

    def bound(self, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
        """What the operator declares for one piece of audio, and the text that goes with it."""
        prompt = self.asked.prompt
        audio_tokens = limits.audio_tokens_max
        if audio_tokens is None:
            if capped:
                return _unbounded(self.asked.model)
            audio_tokens = prompt.media_bytes
        return Bound(audio_tokens + prompt.text_bytes, output_tokens=0, choices=1)

    def write(self, limits: ModelLimits, target: Target) -> Document:
        """A form of our own, the small parts before the file."""
        content_type, body = write_form([Part("model", target.model.encode()), *self.parts])
        return Document(body, content_type)

    def read(self, answer: Document, limits: ModelLimits) -> PlainReply | None:
        """A text, or an object that has one."""
        if self.response_format not in ("json", "verbose_json"):
            return _text_reply(answer.body)
        try:
            reply = _VALUE.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not isinstance(reply, dict) or not isinstance(reply.get("text"), str):
            return None
        return PlainReply(
            body=with_model(answer.body, reply, self.asked.model),
            usage=_usage(reply.get("usage"), limits),
            content_type=JSON,
        )

    def watch(self, *, output_tokens: int) -> Watcher:
        """Never called: a stream is refused."""
        raise AssertionError("transcriptions are not streamed")

    def forget(self) -> None:
        """Never called, as nothing is streamed."""
        raise AssertionError("transcriptions are not streamed")

    def gather(self, *, output_tokens: int) -> None:
        """A text comes as a whole."""


class Transcriptions(msgspec.Struct, frozen=True):
    """`POST /v1/audio/transcriptions`."""

    neuron_path: str = "/v1/audio/transcriptions"
    answer_noun: str = "transcription"
    token_per_chunk: bool = False

    def understand(
        self, posted: Document, *, forward_fields: frozenset[str]
    ) -> TranscriptionRequest | Refusal:
        """Read a form; the order of its parts means nothing."""
        try:
            return _understood(posted, forward_fields)
        except Unfit as unfit:
            return unfit.refusal

    def render(self, refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
        """OpenAI's envelope."""
        return render(refusal, request_id=request_id)


def _understood(posted: Document, forward_fields: frozenset[str]) -> TranscriptionRequest:
    try:
        parts = read_form(posted.body, posted.content_type)
    except NoForm as no_form:
        raise Unfit(RefusalKind.INVALID_FORM, str(no_form)) from None
    texts = _texts(parts)
    model = texts.get("model", "")
    if not model.strip():
        missing("model")
    if texts.get("stream", "false").strip().lower() not in ("false", "0", ""):
        unsupported("stream", "transcriptions are not streamed here")
    response_format = texts.get("response_format", "json")
    if response_format not in FORMATS:
        invalid("response_format", f"must be one of {', '.join(FORMATS)}")
    files = [part for part in parts if part.name == "file"]
    if len(files) != 1 or not files[0].data:
        missing("file")
    known = FORWARDED | forward_fields
    going = [part for part in parts if part.name in known and part.name not in _READ_HERE]
    going.sort(key=lambda part: part.name == "file")
    left = [part.name for part in parts if part.name not in known | set(_READ_HERE)]
    asked = Asked(
        model=model,
        stream=False,
        include_usage=False,
        choices=1,
        output_requested=None,
        fields={},
        dropped=tuple(printable(name) for name in left[:DROPPED_NAMES_MAX]),
        prompt=PromptSize(
            text_bytes=sum(len(part.data) for part in going if part.name != "file"),
            audios=1,
            media_bytes=len(files[0].data),
        ),
        prompts=0,
        generates=False,
    )
    return TranscriptionRequest(asked, tuple(going), response_format)


def _texts(parts: list[Part]) -> dict[str, str]:
    """The parts but the file, as texts; of equal names the last, and exactly that one goes on."""
    texts: dict[str, str] = {}
    for part in parts:
        if part.name == "file":
            continue
        if part.name in texts and not part.name.startswith("timestamp_granularities"):
            invalid(printable(part.name), "must be given once")
        if len(part.data) > TEXT_BYTES_MAX:
            invalid(printable(part.name), f"must not be longer than {TEXT_BYTES_MAX} bytes")
        try:
            texts[part.name] = part.data.decode()
        except UnicodeDecodeError:
            invalid(printable(part.name), "must be UTF-8 text")
    return texts


def _text_reply(body: bytes) -> PlainReply | None:
    try:
        body.decode()
    except UnicodeDecodeError:
        return None
    return PlainReply(body=body, usage=None, content_type=_TEXT_CONTENT)


def _usage(reported: object, limits: ModelLimits) -> Usage | None:
    """Tokens as the engine counts them, or its seconds at the operator's price."""
    if not isinstance(reported, dict):
        return None
    seconds, price = reported.get("seconds"), limits.tokens_per_audio_second
    if price is not None and isinstance(seconds, int | float) and 0 < seconds < SECONDS_LIMIT:
        return Usage(prompt_tokens=math.ceil(seconds * price), completion_tokens=0)
    total = as_count(reported.get("total_tokens"), largest=TOKENS_LIMIT - 1)
    return None if total is None else Usage(prompt_tokens=total, completion_tokens=0)


def _unbounded(model: str) -> Refusal:
    return Refusal(
        kind=RefusalKind.UNSUPPORTED_PARAMETER,
        message=(
            "What a piece of audio costs is not known beforehand, which a key with a hard cap "
            f"needs. The operator can set audio_tokens_max for model '{model[:200]}' in the "
            "catalogue."
        ),
        param="file",
    )

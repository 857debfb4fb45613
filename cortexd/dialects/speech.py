"""OpenAI's speech: a text in, audio back.

Owns `POST /v1/audio/speech`. Refuses to know keys, budgets and neurons.
Source: https://platform.openai.com/docs/api-reference/audio/createSpeech.

Engines say nothing of what it took, so it is priced by the characters of the text, which are known
beforehand: what is reserved is what is charged.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.asked import Asked, PromptSize
from cortexd.dialects.body import Body, invalid
from cortexd.dialects.forwarding import Lists, take
from cortexd.dialects.refusals import Refusal, RefusalKind, Rendered, render
from cortexd.dialects.surface import Document, PlainReply, Watcher, understood
from cortexd.dialects.upper_bound import Bound
from cortexd.dialects.usage import Usage

if TYPE_CHECKING:
    from cortexd.dialects.surface import Target
    from cortexd.dialects.upper_bound import ModelLimits

HARMLESS = frozenset({"voice", "response_format", "speed", "instructions", "language"})
"""Forwarded beside `input`."""

CONTENT_TYPES = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}

TOKENS_PER_CHARACTER_DEFAULT = 1
"""What is written down for a key without a cap where the operator names no price."""

_AUDIO = re.compile(r"audio/[\w.+-]{1,64}(?:;[\w=\s.+-]{0,64})?", re.ASCII)
_LISTS = Lists(read_here=frozenset({"model", "input"}), rendered=frozenset(), harmless=HARMLESS)
_ENCODE = msgspec.json.Encoder().encode


class SpeechRequest(msgspec.Struct, frozen=True):
    """A text to be spoken that was understood."""

    asked: Asked
    characters: int
    response_format: str

    def bound(self, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
        """Characters at the operator's price."""
        if limits.tokens_per_speech_character is None and capped:
            return _unpriced(self.asked.model)
        return Bound(self._tokens(limits), output_tokens=0, choices=1)

    def write(self, limits: ModelLimits, target: Target) -> Document:
        """The text as it came."""
        return Document(_ENCODE({"model": target.model, **self.asked.fields}))

    def read(self, answer: Document, limits: ModelLimits) -> PlainReply | None:
        """Whatever audio came; an engine's JSON is no audio."""
        kind = answer.content_type.strip()
        if not answer.body or "json" in kind or kind.startswith("text/"):
            return None
        return PlainReply(
            body=answer.body,
            usage=Usage(prompt_tokens=self._tokens(limits), completion_tokens=0),
            content_type=kind if _AUDIO.fullmatch(kind) else CONTENT_TYPES[self.response_format],
        )

    def watch(self, *, output_tokens: int) -> Watcher:
        """Never called: audio comes as a whole."""
        raise AssertionError("speech is not streamed")

    def forget(self) -> None:
        """Never called, as nothing is streamed."""
        raise AssertionError("speech is not streamed")

    def gather(self, *, output_tokens: int) -> None:
        """Audio comes as a whole."""

    def _tokens(self, limits: ModelLimits) -> int:
        price = limits.tokens_per_speech_character
        return self.characters * (TOKENS_PER_CHARACTER_DEFAULT if price is None else price)


class Speech(msgspec.Struct, frozen=True):
    """`POST /v1/audio/speech`."""

    neuron_path: str = "/v1/audio/speech"
    answer_noun: str = "audio"
    token_per_chunk: bool = False

    def understand(
        self, posted: Document, *, forward_fields: frozenset[str]
    ) -> SpeechRequest | Refusal:
        """Read a text and how it is to be spoken."""
        return understood(_understood, posted.body, forward_fields)

    def render(self, refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
        """OpenAI's envelope."""
        return render(refusal, request_id=request_id)


def _understood(body: Body, forward_fields: frozenset[str]) -> SpeechRequest:
    model = body.model()
    body.required("input")
    text = body.text("input")
    if not text:
        invalid("input", "must be a non-empty string")
    response_format = body.text("response_format") or "mp3"
    if response_format not in CONTENT_TYPES:
        invalid("response_format", f"must be one of {', '.join(CONTENT_TYPES)}")
    forwarded = {"input": body.fields["input"]}
    taken = take(body, _LISTS, forward_fields, forwarded=forwarded)
    # Instructions are read, too.
    characters = len(text) + len(body.text("instructions") or "")
    asked = Asked(
        model=model,
        stream=False,
        include_usage=False,
        choices=1,
        output_requested=None,
        fields=taken.fields,
        dropped=taken.dropped,
        prompt=PromptSize(text_bytes=characters),
        prompts=0,
        generates=False,
    )
    return SpeechRequest(asked, characters, response_format)


def _unpriced(model: str) -> Refusal:
    return Refusal(
        kind=RefusalKind.UNSUPPORTED_PARAMETER,
        message=(
            "Speech has no price here, which a key with a hard cap needs. The operator can set "
            f"tokens_per_speech_character for model '{model[:200]}' in the catalogue."
        ),
        param="model",
    )

"""OpenAI's embeddings: texts or token ids in, vectors out, as base64 or as numbers.

Owns `POST /v1/embeddings`. Refuses to know keys, budgets and neurons.
Source: https://platform.openai.com/docs/api-reference/embeddings/create.

OpenAI's packages ask for base64 (float32, little endian) and one of them reads numbers as an empty
vector, while many engines know numbers only; so what a client asked for is made from whatever
comes. Nothing is generated: all the work is in the inputs.
"""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.asked import Asked, PromptSize
from cortexd.dialects.body import Body, invalid
from cortexd.dialects.completions import Prompt, least_prompt_tokens, read_prompts
from cortexd.dialects.forwarding import Lists, take
from cortexd.dialects.prompt_size import rendered_bytes
from cortexd.dialects.reading_size import read_bytes
from cortexd.dialects.refusals import Refusal, Rendered, render
from cortexd.dialects.surface import Document, PlainReply, Watcher, understood
from cortexd.dialects.upper_bound import bound
from cortexd.dialects.usage import read_input_usage

if TYPE_CHECKING:
    from cortexd.dialects.surface import Target
    from cortexd.dialects.upper_bound import Bound, ModelLimits

INPUTS_MAX = 2048
"""OpenAI's own limit for inputs of one request."""

DIMENSIONS_MAX = 1_000_000

HARMLESS = frozenset({"dimensions", "encoding_format", "user"})
"""Forwarded beside `input`."""

_LISTS = Lists(read_here=frozenset({"model", "input"}), rendered=frozenset(), harmless=HARMLESS)
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ROWS = msgspec.json.Decoder(list[dict[str, msgspec.Raw]])
_VECTOR = msgspec.json.Decoder(list[float])
_TEXT = msgspec.json.Decoder(str)
_VALUE = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder().encode


class EmbeddingsRequest(msgspec.Struct, frozen=True):
    """A request for vectors that was understood."""

    asked: Asked
    as_base64: bool

    def bound(self, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
        """The inputs alone."""
        return bound(self.asked, limits, capped=capped)

    def write(self, limits: ModelLimits, target: Target) -> Document:
        """The inputs as they came."""
        return Document(_ENCODE({"model": target.model, **self.asked.fields}))

    def read(self, answer: Document, limits: ModelLimits) -> PlainReply | None:
        """A list of vectors in the form that the client asked for."""
        try:
            fields = dict(_FIELDS.decode(answer.body))
            rows = _ROWS.decode(fields["data"])
            vectors = [_vector(row["embedding"], as_base64=self.as_base64) for row in rows]
            usage = read_input_usage(_VALUE.decode(fields.get("usage", b"null")))
        except (KeyError, msgspec.MsgspecError, RecursionError):
            return None
        except (ValueError, struct.error, OverflowError):  # no base64, no UTF-8, no float32
            return None
        if not rows:
            return None
        data = [{**row, "embedding": vector} for row, vector in zip(rows, vectors, strict=True)]
        body = _ENCODE({**fields, "data": data, "model": self.asked.model})
        return PlainReply(body=body, usage=usage)

    def watch(self, *, output_tokens: int) -> Watcher:
        """Never called: vectors are not streamed."""
        raise AssertionError("embeddings are not streamed")

    def forget(self) -> None:
        """Never called, as nothing is streamed."""
        raise AssertionError("embeddings are not streamed")

    def gather(self, *, output_tokens: int) -> None:
        """Vectors come as a whole."""


class Embeddings(msgspec.Struct, frozen=True):
    """`POST /v1/embeddings`."""

    neuron_path: str = "/v1/embeddings"
    answer_noun: str = "list of embeddings"
    token_per_chunk: bool = False

    def understand(
        self, posted: Document, *, forward_fields: frozenset[str]
    ) -> EmbeddingsRequest | Refusal:
        """Read a text, token ids, or a list of either."""
        return understood(_understood, posted.body, forward_fields)

    def render(self, refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
        """OpenAI's envelope."""
        return render(refusal, request_id=request_id)


def _understood(body: Body, forward_fields: frozenset[str]) -> EmbeddingsRequest:
    model = body.model()
    inputs = read_prompts(body.required("input"), "input")
    if len(inputs) > INPUTS_MAX:
        invalid("input", f"must not hold more than {INPUTS_MAX} inputs")
    form = body.text("encoding_format") or "float"
    if form not in ("float", "base64"):
        invalid("encoding_format", "must be float or base64")
    body.integer("dimensions", largest=DIMENSIONS_MAX)
    forwarded = {"input": body.fields["input"]}
    taken = take(body, _LISTS, forward_fields, forwarded=forwarded)
    asked = Asked(
        model=model,
        stream=False,
        include_usage=False,
        choices=1,
        output_requested=None,
        fields=taken.fields,
        dropped=taken.dropped,
        prompt=PromptSize(
            text_bytes=sum(map(_input_bytes, inputs)),
            tools_bytes=len(inputs) * sum(map(rendered_bytes, taken.rendered)),
        ),
        prompts=len(inputs),
        generates=False,
        least_tokens=max(map(least_prompt_tokens, inputs)),
    )
    return EmbeddingsRequest(asked, as_base64=form == "base64")


def _input_bytes(text: Prompt) -> int:
    return read_bytes(text) if isinstance(text, str) else len(text) + 2


def _vector(raw: msgspec.Raw, *, as_base64: bool) -> msgspec.Raw | str | list[float]:
    """A vector in the wanted form; unchanged where it has it."""
    is_text = bytes(memoryview(raw)[:1]) == b'"'
    if is_text == as_base64:
        if not is_text:
            _VECTOR.decode(raw)
        return raw
    if as_base64:
        numbers = _VECTOR.decode(raw)
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode("ascii")
    packed = base64.b64decode(_TEXT.decode(raw), validate=True)
    return list(struct.unpack(f"<{len(packed) // 4}f", packed))

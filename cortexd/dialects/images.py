"""OpenAI's images: a text in, pictures back, paid for by their size and the steps of drawing.

Owns `POST /v1/images/generations`. Refuses to know keys, budgets and neurons.
Source: https://platform.openai.com/docs/api-reference/images/create.

A unit of work is a megapixel drawn in one step; a negative prompt has each step drawn twice. Size
and steps are written into the request, so that a neuron keeps to what was reserved. A neuron says
how many units it took; from others that say nothing the reservation is charged. Pictures come
back as base64: an address at a neuron would be of no use outside.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.asked import Asked, PromptSize
from cortexd.dialects.body import Body, invalid, unsupported
from cortexd.dialects.forwarding import Lists, take
from cortexd.dialects.refusals import Refusal, RefusalKind, Rendered, render
from cortexd.dialects.surface import Document, PlainReply, Watcher, understood
from cortexd.dialects.upper_bound import Bound
from cortexd.dialects.usage import TOKENS_LIMIT, Usage

if TYPE_CHECKING:
    from cortexd.dialects.surface import Target
    from cortexd.dialects.upper_bound import ModelLimits

IMAGES_MAX = 10
"""OpenAI's own limit for `n`."""

STEPS_MAX = 1_000
SIDE_PIXELS_MAX = 16_384
SIZE_DEFAULT = "1024x1024"

STEPS_UNKNOWN = 50
"""Steps that are reserved for a key without a cap where nobody names any."""

HARMLESS = frozenset({"seed", "negative_prompt", "guidance_scale", "user"})
"""Forwarded beside `prompt`, `n`, `size` and `num_steps`."""

_LISTS = Lists(
    read_here=frozenset(
        {"model", "prompt", "n", "size", "num_steps", "response_format", "stream"},
    ),
    rendered=frozenset(),
    harmless=HARMLESS,
)
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
_VALUE = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder().encode
_PIXELS_PER_UNIT = 1_000_000


class ImagesRequest(msgspec.Struct, frozen=True):
    """Pictures that were understood. `pixels`: of all of them together, in one step."""

    asked: Asked
    size: str
    pixels: int
    steps: int | None

    def bound(self, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
        """Every pixel in every step, at the operator's price."""
        steps = self._steps(limits)
        if steps is None:
            if capped:
                return _unbounded(self.asked.model)
            steps = STEPS_UNKNOWN
        pixel_tokens = self.pixels * steps * limits.tokens_per_image_unit
        return Bound(-(-pixel_tokens // _PIXELS_PER_UNIT), output_tokens=0, choices=1)

    def write(self, limits: ModelLimits, target: Target) -> Document:
        """Size and steps as they were reserved, and base64 as the form of the answer."""
        body: dict[str, object] = {
            "model": target.model,
            **self.asked.fields,
            "size": self.size,
            "response_format": "b64_json",
        }
        steps = self._steps(limits)
        if steps is not None:
            body["num_steps"] = steps
        return Document(_ENCODE(body))

    def read(self, answer: Document, limits: ModelLimits) -> PlainReply | None:
        """Pictures, with the units that drawing them took."""
        try:
            reply = _VALUE.decode(answer.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        if not isinstance(reply, dict):
            return None
        pictures = reply.get("data")
        if not isinstance(pictures, list) or not pictures:
            return None
        return PlainReply(body=answer.body, usage=_usage(reply.get("usage"), limits))

    def watch(self, *, output_tokens: int) -> Watcher:
        """Never called: a stream is refused."""
        raise AssertionError("images are not streamed")

    def forget(self) -> None:
        """Never called, as nothing is streamed."""
        raise AssertionError("images are not streamed")

    def gather(self, *, output_tokens: int) -> None:
        """Pictures come as a whole."""

    def _steps(self, limits: ModelLimits) -> int | None:
        return self.steps if self.steps is not None else limits.image_steps


class Images(msgspec.Struct, frozen=True):
    """`POST /v1/images/generations`."""

    neuron_path: str = "/v1/images/generations"
    answer_noun: str = "list of images"
    token_per_chunk: bool = False

    def understand(
        self, posted: Document, *, forward_fields: frozenset[str]
    ) -> ImagesRequest | Refusal:
        """Read a description, and how large and in how many steps it is to be drawn."""
        return understood(_understood, posted.body, forward_fields)

    def render(self, refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
        """OpenAI's envelope."""
        return render(refusal, request_id=request_id)


def _understood(body: Body, forward_fields: frozenset[str]) -> ImagesRequest:
    model = body.model()
    body.required("prompt")
    prompt = body.text("prompt")
    if not prompt:
        invalid("prompt", "must be a non-empty string")
    images = body.integer("n", largest=IMAGES_MAX) or 1
    size, pixels = _size(body.text("size") or SIZE_DEFAULT)
    steps = body.integer("num_steps", largest=STEPS_MAX)
    if body.flag("stream"):
        unsupported("stream", "images are not streamed here")
    if body.text("response_format") not in (None, "b64_json"):
        unsupported("response_format", "images come as b64_json")
    passes = 2 if body.text("negative_prompt") else 1
    forwarded = {"prompt": body.fields["prompt"]}
    if "n" in body.fields:
        forwarded["n"] = body.fields["n"]
    taken = take(body, _LISTS, forward_fields, forwarded=forwarded)
    asked = Asked(
        model=model,
        stream=False,
        include_usage=False,
        choices=1,
        output_requested=None,
        fields=taken.fields,
        dropped=taken.dropped,
        prompt=PromptSize(text_bytes=len(prompt.encode())),
        prompts=0,
        generates=False,
    )
    return ImagesRequest(asked, size, images * passes * pixels, steps)


def _size(size: str) -> tuple[str, int]:
    """The size to be drawn, and its pixels. `auto` leaves it to us."""
    size = SIZE_DEFAULT if size == "auto" else size
    found = _SIZE.fullmatch(size)
    sides = [int(side) for side in found.groups()] if found else [0]
    if not all(1 <= side <= SIDE_PIXELS_MAX for side in sides):
        invalid("size", f"must be like {SIZE_DEFAULT}, each side up to {SIDE_PIXELS_MAX} pixels")
    return size, math.prod(sides)


def _usage(reported: object, limits: ModelLimits) -> Usage | None:
    """A neuron's own units at the operator's price; None where it names none."""
    units = reported.get("helexa_image_units") if isinstance(reported, dict) else None
    if not isinstance(units, int | float) or isinstance(units, bool) or not 0 < units < math.inf:
        return None
    tokens = units * limits.tokens_per_image_unit
    if tokens >= TOKENS_LIMIT:
        return None
    return Usage(prompt_tokens=math.ceil(tokens), completion_tokens=0)


def _unbounded(model: str) -> Refusal:
    return Refusal(
        kind=RefusalKind.UNSUPPORTED_PARAMETER,
        message=(
            "The steps of drawing are not known beforehand, which a key with a hard cap needs. "
            "Name num_steps in the request; or the operator can set image_steps for model "
            f"'{model[:200]}' in the catalogue."
        ),
        param="num_steps",
    )

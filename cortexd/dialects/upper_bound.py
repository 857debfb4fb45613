"""The most tokens a request can cost, and why.

Owns the arithmetic from sizes and limits to a bound that is reserved before anything is sent.
Refuses to know tokenizers, keys and neurons. Theory: a token of a byte-complete vocabulary covers
at least one byte of its prompt, so bytes bound tokens; the JSON around each message pays for what
the chat template writes around it; `template_tokens` pays for what a template adds once. Media has
no such relation, so it costs its declared ceiling or the model's whole context.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.refusals import Refusal, RefusalKind

if TYPE_CHECKING:
    from cortexd.dialects.asked import Asked

OUTPUT_TOKENS_DEFAULT = 4096
"""Output that a request gets when neither the client nor the model names a limit."""


class ModelLimits(msgspec.Struct, frozen=True):
    """What is known about a model wherever it may run; None = nobody has said.

    `context_min` and `context_max`: the smallest and the largest context window among its neurons
    and the catalogue. `output`: the most tokens per answer. `template_tokens`: what the chat
    template adds beyond the bytes of the messages. The `*_tokens_max`: ceiling for one item.
    `image_steps`: steps of an image that names none. The `tokens_per_*`: prices of work that no
    engine counts in tokens; an image unit is a megapixel drawn in one step. `native_messages`: a
    neuron may get a message as it is, rather than as a chat.
    """

    context_min: int | None
    context_max: int | None
    output: int | None
    template_tokens: int = 0
    image_tokens_max: int | None = None
    audio_tokens_max: int | None = None
    file_tokens_max: int | None = None
    image_steps: int | None = None
    tokens_per_image_unit: int = 1000
    tokens_per_audio_second: int | None = None
    tokens_per_speech_character: int | None = None
    native_messages: bool = False


class Bound(msgspec.Struct, frozen=True):
    """The tokens to reserve. `output_tokens` is per choice, and is what the neuron is told."""

    prompt_tokens: int
    output_tokens: int
    choices: int

    @property
    def total(self) -> int:
        """Tokens of the prompt and of every choice at its longest."""
        return self.prompt_tokens + self.choices * self.output_tokens


def bound(asked: Asked, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
    """Work out the most that `asked` can cost on a model with `limits`.

    Refuses (400) only media of unknown size for a capped key, naming the setting that is missing.
    """
    prompt_tokens = _prompt_tokens(asked, limits, capped=capped)
    if isinstance(prompt_tokens, Refusal):
        return prompt_tokens
    output_tokens = 0
    if asked.generates:
        output_tokens = _output_tokens(asked, limits, prompt_tokens=prompt_tokens)
    return Bound(prompt_tokens, output_tokens, asked.choices)


def _prompt_tokens(asked: Asked, limits: ModelLimits, *, capped: bool) -> int | Refusal:
    prompt = asked.prompt
    # What a template adds, it adds to each prompt; and no prompt can outgrow the context.
    prompt_tokens = prompt.text_bytes + prompt.tools_bytes + asked.prompts * limits.template_tokens
    most = None if limits.context_max is None else asked.prompts * limits.context_max
    if prompt.has_media:
        media_tokens = _media_tokens(asked, limits, most, capped=capped)
        if isinstance(media_tokens, Refusal):
            return media_tokens
        prompt_tokens += media_tokens
    return prompt_tokens if most is None or prompt_tokens < most else most


def _media_tokens(
    asked: Asked, limits: ModelLimits, most: int | None, *, capped: bool
) -> int | Refusal:
    """Bound the tokens of media. `most`: what all prompts together can come to, if anything can
    be said of it.
    """
    prompt = asked.prompt
    media = (
        ("image", prompt.images, limits.image_tokens_max),
        ("audio", prompt.audios, limits.audio_tokens_max),
        ("file", prompt.files, limits.file_tokens_max),
    )
    unbounded = [medium for medium, count, tokens_max in media if count and tokens_max is None]
    if unbounded and most is not None:
        return most
    if unbounded and capped:
        return _unbounded_media(unbounded[0], asked.model)
    media_tokens = prompt.media_bytes if unbounded else 0
    return media_tokens + sum(count * tokens_max for _, count, tokens_max in media if tokens_max)


def _unbounded_media(medium: str, model: str) -> Refusal:
    return Refusal(
        kind=RefusalKind.UNSUPPORTED_PARAMETER,
        message=(
            f"The {medium} content of this request cannot be bounded in tokens, which a key with a "
            f"hard cap needs. The operator can set {medium}_tokens_max or limit.context for model "
            f"'{model}' in the catalogue."
        ),
        param="messages",
    )


def _output_tokens(asked: Asked, limits: ModelLimits, *, prompt_tokens: int) -> int:
    requested, largest, context = asked.output_requested, limits.output, limits.context_min
    if requested is not None:
        output_tokens = requested
    else:
        output_tokens = largest if largest is not None else OUTPUT_TOKENS_DEFAULT
    if largest is not None and largest < output_tokens:
        output_tokens = largest
    if context is not None:
        if context - 1 < output_tokens:
            output_tokens = context - 1
        if requested is None:
            room = max(context - prompt_tokens, context // 4)
            output_tokens = min(output_tokens, room)
    return max(1, output_tokens)

"""OpenAI's completions: prompts as they are, without a chat template, and texts that follow them.

Owns `POST /v1/completions`, fill-in-the-middle (`suffix`) included. Refuses to know keys, budgets
and neurons. Source: https://platform.openai.com/docs/api-reference/completions/create.

A prompt is a text or a list of token ids, or a list of either; each prompt gets `n` answers, and
the suffix is read again with each. Ids are counted, texts are bounded by their bytes: the quotes
around a text pay for the marks that a tokenizer puts at its ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.asked import Asked, PromptSize
from cortexd.dialects.body import Body, invalid, unsupported
from cortexd.dialects.chat_stream import ChatStream
from cortexd.dialects.context_fit import least_text_tokens
from cortexd.dialects.engine_traits import sent_fields
from cortexd.dialects.fields import HARMLESS, OUTPUT_LIMITS
from cortexd.dialects.forwarding import Lists, output_requested, streaming, take
from cortexd.dialects.gathering import ChatGathering
from cortexd.dialects.openai import CHOICES_MAX, plain_reply
from cortexd.dialects.prompt_size import normalised_growth, rendered_bytes
from cortexd.dialects.refusals import Refusal, Rendered, render
from cortexd.dialects.surface import Document, understood
from cortexd.dialects.upper_bound import bound

if TYPE_CHECKING:
    from cortexd.dialects.sse import Event
    from cortexd.dialects.surface import PlainReply, Target
    from cortexd.dialects.upper_bound import Bound, ModelLimits

OUTPUT_TOKENS_DEFAULT = 16
"""What OpenAI and most engines take where a completion names no limit."""

TOKEN_ID_MAX = 2**31 - 1

SUFFIX_TOKENS = 4
"""Marks around prefix, suffix and middle, for each prompt."""

RENDERED = frozenset({"suffix", "response_format", "json_schema"})

_READ_HERE = frozenset({"model", "prompt", "n", "stream", "stream_options", "echo", *OUTPUT_LIMITS})
_LISTS = Lists(read_here=_READ_HERE, rendered=RENDERED, harmless=HARMLESS)
_ENCODE = msgspec.json.Encoder().encode

Prompt = str | list[int]


class CompletionStream(ChatStream):
    """A stream of text chunks: a chat's in all but its last words."""

    object_name = "text_completion"

    def ended_choice(self, index: int) -> dict[str, object]:
        """Write a choice that ends here because its output is used up."""
        return {"index": index, "text": "", "logprobs": None, "finish_reason": "length"}

    def _pass_on(self, event: Event) -> bytes:
        # llama-server begins the answers to several prompts with an event that says nothing.
        if event.data is not None and event.data.strip() == b"null":
            return b""
        return super()._pass_on(event)


class CompletionGathering(ChatGathering, CompletionStream):
    """The whole of a stream of text chunks."""


class CompletionRequest(msgspec.Struct, frozen=True):
    """A completion that was understood."""

    asked: Asked

    def bound(self, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
        """All prompts, and all answers at their longest."""
        return bound(self.asked, limits, capped=capped)

    def write(self, limits: ModelLimits, target: Target) -> Document:
        """One `max_tokens`; a stream is always asked for its usage."""
        body: dict[str, object] = {
            "model": target.model,
            **sent_fields(self.asked.fields, target.engine),
            "max_tokens": target.output_tokens,
            "stream": target.stream,
        }
        if target.stream:
            body["stream_options"] = {"include_usage": True}
        return Document(_ENCODE(body))

    def read(self, answer: Document, limits: ModelLimits) -> PlainReply | None:
        """A completion has the frame of a chat completion, with `text` for `message`."""
        return plain_reply(answer.body, model=self.asked.model)

    def watch(self, *, output_tokens: int) -> CompletionStream:
        """Text chunks, the usage one only for a client that asked for it."""
        return CompletionStream(
            include_usage=self.asked.include_usage,
            model=self.asked.model,
            output_tokens_max=output_tokens,
            choices=self.asked.choices,
        )

    def forget(self) -> None:
        """See `Understood`."""
        self.asked.forget()

    def gather(self, *, output_tokens: int) -> CompletionGathering:
        """A completion from its chunks."""
        return CompletionGathering(
            model=self.asked.model, output_tokens_max=output_tokens, choices=self.asked.choices
        )


class Completions(msgspec.Struct, frozen=True):
    """`POST /v1/completions`."""

    neuron_path: str = "/v1/completions"
    answer_noun: str = "completion"
    token_per_chunk: bool = False

    def understand(
        self, posted: Document, *, forward_fields: frozenset[str]
    ) -> CompletionRequest | Refusal:
        """Read a completion; `echo` is refused, as its text would count as generated."""
        return understood(_understood, posted.body, forward_fields)

    def render(self, refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
        """OpenAI's envelope."""
        return render(refusal, request_id=request_id)


def _understood(body: Body, forward_fields: frozenset[str]) -> CompletionRequest:
    model = body.model()
    prompts = read_prompts(body.required("prompt"), "prompt")
    per_prompt = body.integer("n", largest=CHOICES_MAX) or 1
    if per_prompt * len(prompts) > CHOICES_MAX:
        invalid("prompt", f"must not ask for more than {CHOICES_MAX} answers in all")
    if body.flag("echo"):
        unsupported("echo", "the prompt is known to its sender")
    suffix = body.text("suffix")
    stream, include_usage = streaming(body)
    forwarded = {"prompt": body.fields["prompt"]}
    if "n" in body.fields:
        forwarded["n"] = body.fields["n"]
    taken = take(body, _LISTS, forward_fields, forwarded=forwarded)
    sizes = [prompt_bytes(prompt) for prompt in prompts]
    marks = SUFFIX_TOKENS if suffix is not None else 0
    beside = sum(map(rendered_bytes, taken.rendered)) + marks
    asked = Asked(
        model=model,
        stream=stream,
        include_usage=include_usage,
        choices=per_prompt * len(prompts),
        output_requested=output_requested(body, OUTPUT_LIMITS) or OUTPUT_TOKENS_DEFAULT,
        fields=taken.fields,
        dropped=taken.dropped,
        prompt=PromptSize(text_bytes=sum(sizes), tools_bytes=len(prompts) * beside),
        prompts=len(prompts),
        least_tokens=max(map(least_prompt_tokens, prompts)),
    )
    return CompletionRequest(asked)


def read_prompts(value: object, param: str) -> list[Prompt]:
    """Read a text, a list of token ids, or a list of either kind; raises Unfit for all else."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or not value:
        invalid(param, "must be a string or a non-empty array")
    if all(type(item) is int for item in value):
        return [_token_ids(value, param)]
    prompts: list[Prompt] = []
    for position, item in enumerate(value):
        place = f"{param}[{position}]"
        if isinstance(item, str) == isinstance(value[0], str) and isinstance(item, str | list):
            prompts.append(item if isinstance(item, str) else _token_ids(item, place))
        else:
            invalid(place, "must be a string, or in all places an array of token ids")
    return prompts


def prompt_bytes(prompt: Prompt) -> int:
    """Bound the tokens of one prompt: ids are counted, text as JSON covers what it becomes."""
    if not isinstance(prompt, str):
        return len(prompt) + 2
    encoded = _ENCODE(prompt)
    return len(encoded) + normalised_growth(encoded)


def least_prompt_tokens(prompt: Prompt) -> int:
    """Count what one prompt is sure to come to."""
    return least_text_tokens(prompt) if isinstance(prompt, str) else len(prompt)


def _token_ids(value: list[object], param: str) -> list[int]:
    ids = [item for item in value if type(item) is int and 0 <= item <= TOKEN_ID_MAX]
    if not ids or len(ids) != len(value):
        invalid(param, f"must hold token ids, integers from 0 to {TOKEN_ID_MAX}, at least one")
    return ids

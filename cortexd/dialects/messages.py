"""Anthropic's messages as a surface: `anthropic*.py` put together, over the chats of neurons."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.anthropic import AnthropicAsked, understand_messages
from cortexd.dialects.anthropic_errors import render_anthropic
from cortexd.dialects.anthropic_native import (
    API_VERSION,
    mark_tokens,
    native_body,
    native_reply,
)
from cortexd.dialects.anthropic_native_stream import NativeStream
from cortexd.dialects.anthropic_reply import message_reply, token_count
from cortexd.dialects.anthropic_stream import AnthropicStream
from cortexd.dialects.engine_traits import sent_fields
from cortexd.dialects.gathering import ChatGathering
from cortexd.dialects.openai import chat_body
from cortexd.dialects.refusals import Refusal, Rendered
from cortexd.dialects.surface import Document, Way
from cortexd.dialects.upper_bound import bound

if TYPE_CHECKING:
    from cortexd.dialects.asked import Asked
    from cortexd.dialects.body import Body
    from cortexd.dialects.surface import PlainReply, Target
    from cortexd.dialects.upper_bound import Bound, ModelLimits


class MessagesRequest(msgspec.Struct, frozen=True):
    """A message that was understood, as the chat that it becomes."""

    told: AnthropicAsked
    request_id: str

    @property
    def asked(self) -> Asked:
        """The facts of the chat."""
        return self.told.asked

    def bound(self, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
        """As the chat that a neuron gets: what a translation adds is counted.

        Where a neuron may translate it itself, what that can add is, too.
        """
        asked, body = self.asked, self.told.body
        if limits.native_messages and body is not None:
            text_bytes = asked.prompt.text_bytes + mark_tokens(body)
            prompt = msgspec.structs.replace(asked.prompt, text_bytes=text_bytes)
            asked = msgspec.structs.replace(asked, prompt=prompt)
        return bound(asked, limits, capped=capped)

    def native(self) -> Way | None:
        """As the message that it is."""
        if self.told.needs_chat or self.told.body is None:
            return None
        return Way(NATIVE, NativeRequest(self, self.told.body))

    def write(self, limits: ModelLimits, target: Target) -> Document:
        """A chat."""
        return Document(chat_body(self.asked, target))

    def read(self, answer: Document, limits: ModelLimits) -> PlainReply | None:
        """A chat completion, told as a message."""
        return message_reply(
            answer.body,
            model=self.asked.model,
            request_id=self.request_id,
            stop_sequences=self.told.stop_sequences,
            hide_thinking=self.told.hide_thinking,
        )

    def watch(self, *, output_tokens: int) -> AnthropicStream:
        """Chat chunks, told as Anthropic's events."""
        return AnthropicStream(
            model=self.asked.model,
            request_id=self.request_id,
            output_tokens_max=output_tokens,
            stop_sequences=self.told.stop_sequences,
            hide_thinking=self.told.hide_thinking,
        )

    def forget(self) -> None:
        """See `Understood`."""
        self.asked.forget()
        if self.told.body is not None:
            self.told.body.fields.clear()

    def gather(self, *, output_tokens: int) -> ChatGathering:
        """A chat completion from its chunks."""
        return ChatGathering(
            model=self.asked.model, output_tokens_max=output_tokens, choices=self.asked.choices
        )


class NativeRequest(msgspec.Struct, frozen=True):
    """The same message for a neuron that reads messages."""

    message: MessagesRequest
    body: Body

    @property
    def asked(self) -> Asked:
        """The facts of the chat."""
        return self.message.asked

    def bound(self, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
        """As the message is bounded, which was reserved before a neuron was chosen."""
        return self.message.bound(limits, capped=capped)

    def write(self, limits: ModelLimits, target: Target) -> Document:
        """A message of the closed list, with one limit."""
        written = native_body(
            self.body,
            model=target.model,
            output_tokens=target.output_tokens,
            extra=sent_fields(self.message.told.extra, target.engine),
        )
        return Document(written, headers=((b"anthropic-version", API_VERSION),))

    def read(self, answer: Document, limits: ModelLimits) -> PlainReply | None:
        """A message, under our names."""
        request_id = self.message.request_id
        return native_reply(answer.body, model=self.asked.model, request_id=request_id)

    def watch(self, *, output_tokens: int) -> NativeStream:
        """Anthropic's events as they come."""
        return NativeStream(
            model=self.asked.model,
            request_id=self.message.request_id,
            output_tokens_max=output_tokens,
        )

    def forget(self) -> None:
        """See `Understood`."""
        self.message.forget()

    def gather(self, *, output_tokens: int) -> None:
        """Nothing: who has to stream a plain answer is asked for a chat."""


class Messages(msgspec.Struct, frozen=True):
    """`POST /v1/messages`, and the envelope of `/v1/messages/count_tokens`."""

    neuron_path: str = "/v1/chat/completions"
    answer_noun: str = "chat completion"
    token_per_chunk: bool = True

    def understand(
        self, posted: Document, *, forward_fields: frozenset[str]
    ) -> MessagesRequest | Refusal:
        """Read a request for a message, or for the count of its tokens."""
        told = understand_messages(posted.body, forward_fields=forward_fields)
        return told if isinstance(told, Refusal) else MessagesRequest(told, posted.request_id)

    def render(self, refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
        """Anthropic's envelope."""
        return render_anthropic(refusal, request_id=request_id, model=model)


NATIVE = Messages(neuron_path="/v1/messages", answer_noun="message", token_per_chunk=False)
"""The same endpoint at neurons that speak the dialect."""


def count_body(tokens: int) -> bytes:
    """Answer `count_tokens` with a bound: more than a tokenizer would count, and never less."""
    return token_count(bound_tokens=tokens)

"""OpenAI's chat completions as a surface: `openai.py` and `chat_stream.py` put together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.asked import Asked
from cortexd.dialects.chat_stream import ChatStream
from cortexd.dialects.gathering import ChatGathering
from cortexd.dialects.openai import chat_body, plain_reply, understand_chat
from cortexd.dialects.refusals import Refusal, Rendered, render
from cortexd.dialects.surface import Document
from cortexd.dialects.upper_bound import bound

if TYPE_CHECKING:
    from cortexd.dialects.surface import PlainReply, Target
    from cortexd.dialects.upper_bound import Bound, ModelLimits


class ChatRequest(msgspec.Struct, frozen=True):
    """A chat that was understood."""

    asked: Asked

    def bound(self, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
        """The prompt, and every choice at its longest."""
        return bound(self.asked, limits, capped=capped)

    def write(self, limits: ModelLimits, target: Target) -> Document:
        """One limit, whatever the client called it."""
        return Document(chat_body(self.asked, target))

    def read(self, answer: Document, limits: ModelLimits) -> PlainReply | None:
        """A chat completion under the name that the client used."""
        return plain_reply(answer.body, model=self.asked.model)

    def watch(self, *, output_tokens: int) -> ChatStream:
        """Chat chunks, the usage one only for a client that asked for it."""
        return ChatStream(
            include_usage=self.asked.include_usage,
            model=self.asked.model,
            output_tokens_max=output_tokens,
            choices=self.asked.choices,
        )

    def forget(self) -> None:
        """See `Understood`."""
        self.asked.forget()

    def gather(self, *, output_tokens: int) -> ChatGathering:
        """A chat completion from its chunks."""
        return ChatGathering(
            model=self.asked.model, output_tokens_max=output_tokens, choices=self.asked.choices
        )


class Chat(msgspec.Struct, frozen=True):
    """`POST /v1/chat/completions`."""

    neuron_path: str = "/v1/chat/completions"
    answer_noun: str = "chat completion"
    token_per_chunk: bool = True

    def understand(
        self, posted: Document, *, forward_fields: frozenset[str]
    ) -> ChatRequest | Refusal:
        """Read a chat by the closed list of `fields.py`."""
        asked = understand_chat(posted.body, forward_fields=forward_fields)
        return asked if isinstance(asked, Refusal) else ChatRequest(asked)

    def render(self, refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
        """OpenAI's envelope."""
        return render(refusal, request_id=request_id)

"""OpenAI's responses, without memory: a request read and checked, the body for a neuron, a reply.

Owns the reading of `POST /v1/responses`. Refuses to know keys, budgets and neurons, and whatever
is kept on a server: an earlier response, a conversation, a stored prompt or item cannot be
bounded here, so it is refused. Source: https://platform.openai.com/docs/api-reference/responses.

Engines turn the items into the messages of a chat, so the prompt is bounded as that chat: each
item's JSON pays for its own template, and texts without such JSON are measured as a message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.asked import Asked
from cortexd.dialects.body import Body, as_objects, invalid, unsupported
from cortexd.dialects.context_fit import least_chat_tokens
from cortexd.dialects.engine_traits import sent_fields
from cortexd.dialects.fields import HARMLESS
from cortexd.dialects.forwarding import Lists, output_requested, take
from cortexd.dialects.json_text import said_once, with_model
from cortexd.dialects.prompt_size import prompt_size
from cortexd.dialects.refusals import Refusal, Rendered, render
from cortexd.dialects.responses_stream import (
    ResponsesGathering,
    ResponsesStream,
    output_seen,
    response_usage,
)
from cortexd.dialects.surface import Document, PlainReply, understood
from cortexd.dialects.upper_bound import bound

if TYPE_CHECKING:
    from cortexd.dialects.surface import Target
    from cortexd.dialects.upper_bound import Bound, ModelLimits

OUTPUT_LIMITS = ("max_output_tokens", "max_tokens", "max_completion_tokens")
"""The first is OpenAI's; the others lower it, and only the first is forwarded."""

KEPT_ELSEWHERE = ("previous_response_id", "conversation", "prompt")
"""Fields that name something a server remembers: refused unless they are null."""

TOOL_TYPES = ("function", "custom")
"""Tools that run at the client; a hosted one makes an engine generate in a loop of its own."""

ITEM_TYPES = (
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
)
"""Items that say all there is to them. The rest refers to hosted tools or to stored items."""

RENDERED = frozenset({"instructions", "tools", "tool_choice", "text", "reasoning"})

HARMLESS_HERE = HARMLESS | {"include"}

_MEASURED_HERE = frozenset({"instructions", "tools"})

_READ_HERE = frozenset(
    {"model", "input", "stream", "stream_options", "store", "background", *KEPT_ELSEWHERE}
    | set(OUTPUT_LIMITS)
)
_VALUE = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder().encode

Items = list[dict[str, object]]


class ResponsesRequest(msgspec.Struct, frozen=True):
    """A request for a response that was understood."""

    asked: Asked

    def bound(self, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
        """Instructions, items and tools as a chat, and one answer."""
        return bound(self.asked, limits, capped=capped)

    def write(self, limits: ModelLimits, target: Target) -> Document:
        """One `max_output_tokens`; nothing is stored at the neuron."""
        body: dict[str, object] = {
            "model": target.model,
            **sent_fields(self.asked.fields, target.engine),
            "max_output_tokens": target.output_tokens,
            "stream": target.stream,
            "store": False,
        }
        return Document(_ENCODE(body))

    def read(self, answer: Document, limits: ModelLimits) -> PlainReply | None:
        """A response under the name that the client used; one that failed is none."""
        try:
            return _reply(answer.body, _VALUE.decode(answer.body), self.asked.model)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None

    def watch(self, *, output_tokens: int) -> ResponsesStream:
        """Typed events, the last of which is held back until the answer is settled."""
        return ResponsesStream(model=self.asked.model, output_tokens_max=output_tokens)

    def forget(self) -> None:
        """See `Understood`."""
        self.asked.forget()

    def gather(self, *, output_tokens: int) -> ResponsesGathering:
        """A response from its last event."""
        return ResponsesGathering(model=self.asked.model, output_tokens_max=output_tokens)


class Responses(msgspec.Struct, frozen=True):
    """`POST /v1/responses`."""

    neuron_path: str = "/v1/responses"
    answer_noun: str = "response"
    token_per_chunk: bool = False

    def understand(
        self, posted: Document, *, forward_fields: frozenset[str]
    ) -> ResponsesRequest | Refusal:
        """Read a request that brings along all that it is about."""
        return understood(_understood, posted.body, forward_fields)

    def render(self, refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
        """OpenAI's envelope."""
        return render(refusal, request_id=request_id)


def _understood(body: Body, forward_fields: frozenset[str]) -> ResponsesRequest:
    model = body.model()
    for name in KEPT_ELSEWHERE:
        if name in body.fields:
            unsupported(name, "nothing is kept here between requests, so send the whole input")
    if body.flag("background"):
        unsupported("background", "a response is made while its client waits")
    given = body.required("input")
    if isinstance(given, str):
        raw = body.fields["input"]
        chat, encoded = _as_chat(given, "user")
    elif isinstance(given, list) and given:
        items = as_objects(given, "input")
        _check_items(items)
        raw, encoded = said_once(body.fields["input"], items)
        chat = [_as_message(item) for item in items]
    else:
        invalid("input", "must be a string or a non-empty array")
    stream = body.flag("stream")
    taken = take(body, _LISTS, forward_fields, forwarded={"input": raw})
    rendered = [*taken.rendered, *_as_templates_see(body)]
    asked = Asked(
        model=model,
        stream=stream,
        include_usage=stream,
        choices=1,
        output_requested=output_requested(body, OUTPUT_LIMITS),
        fields=taken.fields,
        dropped=taken.dropped,
        prompt=prompt_size(chat, encoded, rendered),
        least_tokens=least_chat_tokens(chat),
    )
    return ResponsesRequest(asked)


def _as_chat(text: str, role: str) -> tuple[Items, bytes]:
    chat: Items = [{"role": role, "content": text}]
    return chat, _ENCODE(chat)


def _check_items(items: Items) -> None:
    for position, item in enumerate(items):
        kind = item.get("type", "message")
        if kind not in ITEM_TYPES:
            unsupported(f"input[{position}].type", "only items that say all there is are served")


def _as_message(item: dict[str, object]) -> dict[str, object]:
    """An item as the message of a chat that a template may write out of it."""
    match item.get("type", "message"):
        case "function_call" | "custom_tool_call":
            arguments = item.get("arguments", item.get("input"))
            function = {"name": item.get("name"), "arguments": arguments}
            calls = [{"id": item.get("call_id"), "function": function}]
            return {"role": "assistant", "tool_calls": calls}
        case "function_call_output" | "custom_tool_call_output":
            return {"role": "tool", "content": item.get("output")}
        case "reasoning":
            return {"role": "assistant"}
    return item


def _as_templates_see(body: Body) -> list[bytes]:
    """Instructions as a message, and tools in the nested form that chat templates know."""
    seen: list[bytes] = []
    instructions = body.text("instructions")
    if instructions is not None:
        seen.append(_as_chat(instructions, "system")[1])
    if "tools" in body.fields:
        seen.append(_ENCODE([{"function": tool} for tool in body.objects("tools")]))
    return seen


def _client_tools(body: Body, dropped: list[str]) -> tuple[msgspec.Raw, object]:
    tools = body.objects("tools")
    for position, tool in enumerate(tools):
        if tool.get("type") not in TOOL_TYPES:
            unsupported(f"tools[{position}].type", "only function and custom tools are served")
    return body.fields["tools"], tools


_LISTS = Lists(
    read_here=_READ_HERE,
    rendered=RENDERED - _MEASURED_HERE,
    harmless=HARMLESS_HERE | _MEASURED_HERE,
    special={"tools": _client_tools},
)


def _reply(body: bytes, reply: object, model: str) -> PlainReply | None:
    if not isinstance(reply, dict) or reply.get("error") or reply.get("status") == "failed":
        return None
    output = reply.get("output")
    if not isinstance(output, list):
        return None
    return PlainReply(
        body=with_model(body, reply, model),
        usage=response_usage(reply),
        seen=output_seen(output),
    )

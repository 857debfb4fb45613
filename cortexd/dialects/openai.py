"""OpenAI's chat completions: a request read and checked, the body for a neuron, a plain reply.

Owns the reading of `POST /v1/chat/completions`. Refuses to know keys, budgets and neurons.
Source: https://platform.openai.com/docs/api-reference/chat/create.

A body is decoded once, to one `msgspec.Raw` per field, so that what is not touched is forwarded
byte for byte. Every field that goes on has been decoded, so a neuron is sent valid JSON only.
"""

from __future__ import annotations

import msgspec

from cortexd.dialects.asked import Asked
from cortexd.dialects.body import Body, Unfit, invalid
from cortexd.dialects.context_fit import least_chat_tokens
from cortexd.dialects.engine_traits import sent_fields
from cortexd.dialects.fields import (
    HARMLESS,
    OUTPUT_LIMITS,
    READ_HERE,
    RENDERED,
    TEMPLATE_KWARGS_REMOVED,
    TEMPLATE_MARK_ENDINGS,
)
from cortexd.dialects.forwarding import Lists, output_requested, streaming, take
from cortexd.dialects.generated import seen_in
from cortexd.dialects.json_text import said_once, with_model
from cortexd.dialects.prompt_size import prompt_size
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.surface import PlainReply, Target, understood
from cortexd.dialects.usage import read_usage

CHOICES_MAX = 128
"""OpenAI's own limit for `n`."""

_VALUE = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder().encode


def understand_chat(
    body: bytes, *, forward_fields: frozenset[str] = frozenset()
) -> Asked | Refusal:
    """Read the body of a chat completion request.

    `forward_fields`: names beyond the closed list of `fields.py` that the operator lets through.
    Refuses (400) what is no JSON object, lacks the model or messages, or holds a value that could
    be read as another amount of work by some engine; `param` names the field.
    """
    return understood(_asked, body, forward_fields)


def chat_body(asked: Asked, target: Target) -> bytes:
    """Write the body for a neuron: its fields, and one limit under every name that it obeys.

    `max_tokens` is the spelling that every engine reads, and two are an error to some. A stream is
    always asked for its usage.
    """
    engine = target.engine
    body: dict[str, object] = {"model": target.model, **sent_fields(asked.fields, engine)}
    for name in engine.chat_limits:
        body[name] = target.output_tokens
    body["stream"] = target.stream
    if target.stream:
        body["stream_options"] = {"include_usage": True}
    return _ENCODE(body)


def plain_reply(body: bytes, *, model: str) -> PlainReply | None:
    """Read a neuron's plain answer; None when it is no chat completion.

    `model` is the name the client used; the body is written again only where it says another.
    """
    try:
        reply = _VALUE.decode(body)
        if not isinstance(reply, dict) or reply.get("error"):
            return None
        choices = reply.get("choices")
        if not isinstance(choices, list) or not choices:
            return None
        told = with_model(body, reply, model)
        return PlainReply(told, read_usage(reply.get("usage")), seen_in(choices))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _asked(body: Body, forward_fields: frozenset[str]) -> Asked:
    model = body.model()
    messages = body.objects("messages")
    if not messages:
        invalid("messages", "must not be empty")
    choices = body.integer("n", largest=CHOICES_MAX) or 1
    stream, include_usage = streaming(body)
    raw_messages, encoded_messages = said_once(body.fields["messages"], messages)
    forwarded = {"messages": raw_messages}
    if "n" in body.fields:
        forwarded["n"] = body.fields["n"]
    taken = take(body, _LISTS, forward_fields, forwarded=forwarded)
    words = _template_words(taken.fields)
    return Asked(
        model=model,
        stream=stream,
        include_usage=include_usage,
        choices=choices,
        output_requested=output_requested(body, OUTPUT_LIMITS),
        fields=taken.fields,
        dropped=taken.dropped,
        prompt=prompt_size(messages, encoded_messages, taken.rendered, at_each=words),
        least_tokens=least_chat_tokens(messages),
        teaches=not words and "documents" not in taken.fields,
    )


def _function_tools(body: Body, dropped: list[str]) -> tuple[msgspec.Raw, object]:
    """Hosted tools make an engine generate in a loop of its own: only functions are tools here."""
    tools = body.objects("tools")
    for position, tool in enumerate(tools):
        if tool.get("type", "function") != "function":
            param = f"tools[{position}].type"
            message = f"Unsupported value of '{param}': only tools of type 'function' are served."
            raise Unfit(RefusalKind.UNSUPPORTED_PARAMETER, message, param)
    return body.fields["tools"], tools


def _template_kwargs(body: Body, dropped: list[str]) -> tuple[msgspec.Raw, object]:
    kwargs = body.mapping("chat_template_kwargs") or {}
    removed = {
        name
        for name in kwargs
        if name in TEMPLATE_KWARGS_REMOVED or name.endswith(TEMPLATE_MARK_ENDINGS)
    }
    if not removed:
        return body.fields["chat_template_kwargs"], kwargs
    dropped.extend(f"chat_template_kwargs.{name}" for name in sorted(removed))
    kept = {name: kwargs[name] for name in kwargs if name not in removed}
    return msgspec.Raw(_ENCODE(kept)), kept


def _template_words(fields: dict[str, msgspec.Raw]) -> list[bytes]:
    """Values for the template that it may write anywhere, and as often as there are messages.

    What is a switch is not among them.
    """
    kwargs = fields.get("chat_template_kwargs")
    if kwargs is None:
        return []
    values = _VALUE.decode(kwargs).values()
    return [_ENCODE(value) for value in values if value is not None and type(value) is not bool]


_LISTS = Lists(
    read_here=READ_HERE,
    rendered=RENDERED,
    harmless=HARMLESS,
    special={"tools": _function_tools, "chat_template_kwargs": _template_kwargs},
)

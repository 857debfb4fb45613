"""OpenAI's chat completions: a request read and checked, the body for a neuron, a plain reply.

Owns the reading of `POST /v1/chat/completions`. Refuses to know keys, budgets and neurons.
Source: https://platform.openai.com/docs/api-reference/chat/create.

A body is decoded once, to one `msgspec.Raw` per field, so that what is not touched is forwarded
byte for byte. Every field that goes on has been decoded, so a neuron is sent valid JSON only.
"""

from __future__ import annotations

import msgspec

from cortexd.dialects.asked import Asked
from cortexd.dialects.body import Body, Unfit, as_count, as_flag, invalid, printable
from cortexd.dialects.fields import (
    HARMLESS,
    NATIVE_OUTPUT_LIMITS,
    NEVER_FORWARDED,
    OUTPUT_LIMITS,
    READ_HERE,
    RENDERED,
    TEMPLATE_KWARGS_REMOVED,
)
from cortexd.dialects.generated import generated_bytes
from cortexd.dialects.json_text import said_once
from cortexd.dialects.prompt_size import prompt_size
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.usage import Seen, Usage, read_usage

CHOICES_MAX = 128
"""OpenAI's own limit for `n`."""

OUTPUT_TOKENS_MAX = 2**31 - 1
"""Beyond it engines overflow: 2**40 made one generate for ever and another stop at one token."""

DROPPED_NAMES_MAX = 8
"""Names of removed fields that are kept for the log."""

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder().encode


class PlainReply(msgspec.Struct, frozen=True):
    """A whole chat completion: the bytes for the client, and what it says that it used."""

    body: bytes
    usage: Usage | None
    seen: Seen


def understand_chat(
    body: bytes, *, forward_fields: frozenset[str] = frozenset()
) -> Asked | Refusal:
    """Read the body of a chat completion request.

    `forward_fields`: names beyond the closed list of `fields.py` that the operator lets through.
    Refuses (400) what is no JSON object, lacks the model or messages, or holds a value that could
    be read as another amount of work by some engine; `param` names the field.
    """
    try:
        return _asked(Body(body), forward_fields)
    except Unfit as unfit:
        return unfit.refusal
    except RecursionError:
        return Refusal(RefusalKind.INVALID_JSON, "The request body is nested too deeply.")


def chat_body(asked: Asked, *, model: str, output_tokens: int) -> bytes:
    """Write the body for a neuron that knows the model as `model`.

    The limit is written as `max_tokens` alone: that is the one spelling every engine reads, and
    two spellings are an error to some. A stream is always asked for its usage.
    """
    body: dict[str, object] = {
        "model": model,
        **asked.fields,
        "max_tokens": output_tokens,
        "stream": asked.stream,
    }
    if asked.stream:
        body["stream_options"] = {"include_usage": True}
    return _ENCODE(body)


def plain_reply(body: bytes, *, model: str) -> PlainReply | None:
    """Read a neuron's plain answer; None when it is no chat completion.

    `model` is the name the client used; the body is written again only where it says another.
    """
    try:
        return _reply(body, _VALUE.decode(body), model)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _reply(body: bytes, reply: object, model: str) -> PlainReply | None:
    if not isinstance(reply, dict) or reply.get("error"):
        return None
    choices = reply.get("choices")
    if not isinstance(choices, list) or not choices:
        return None
    sizes = [generated_bytes(choice) for choice in choices if isinstance(choice, dict)]
    if reply.get("model", model) != model:
        body = _ENCODE({**_FIELDS.decode(body), "model": model})
    return PlainReply(
        body=body,
        usage=read_usage(reply.get("usage")),
        seen=Seen(chunks=sum(map(bool, sizes)), text_bytes=sum(sizes)),
    )


def _asked(body: Body, forward_fields: frozenset[str]) -> Asked:
    model = body.required("model")
    if not isinstance(model, str) or not model.strip():
        invalid("model", "must be a non-empty string")
    body.required("messages")
    messages = body.objects("messages")
    if not messages:
        invalid("messages", "must not be empty")
    choices = body.integer("n", largest=CHOICES_MAX) or 1
    stream = body.flag("stream")
    options = body.mapping("stream_options") or {}
    include_usage = as_flag(options.get("include_usage"), "stream_options.include_usage")
    raw_messages, encoded_messages = said_once(body.fields["messages"], messages)
    forwarded = {"messages": raw_messages}
    if "n" in body.fields:
        forwarded["n"] = body.fields["n"]
    dropped, rendered = _sort_out(body, forwarded, forward_fields)
    return Asked(
        model=model,
        stream=stream,
        include_usage=include_usage and stream,
        choices=choices,
        output_requested=_output_requested(body),
        fields=forwarded,
        dropped=tuple(printable(name) for name in dropped[:DROPPED_NAMES_MAX]),
        prompt=prompt_size(messages, encoded_messages, rendered),
    )


def _sort_out(
    body: Body, forwarded: dict[str, msgspec.Raw], extra: frozenset[str]
) -> tuple[list[str], list[bytes]]:
    """Put what may go on into `forwarded`; return names left out, and JSON the prompt may hold."""
    dropped: list[str] = []
    rendered: list[bytes] = []
    for name, raw in body.fields.items():
        if name in READ_HERE:
            continue
        known = name in HARMLESS or name in RENDERED or name in extra
        if not known or name in NEVER_FORWARDED:
            dropped.append(name)
            continue
        value: object
        if name == "tools":
            value = _function_tools(body)
        elif name == "chat_template_kwargs":
            raw, value = _template_kwargs(body, dropped)
        else:
            value = body.value(name)
        forwarded[name], encoded = said_once(raw, value)
        if name not in HARMLESS:
            rendered.append(encoded)
    return dropped, rendered


def _output_requested(body: Body) -> int | None:
    """Return the smallest output limit in any spelling.

    A nonsensical number in an engine's own spelling is not refused: it never gets there.
    """
    limits = [body.integer(name, largest=OUTPUT_TOKENS_MAX) for name in OUTPUT_LIMITS]
    native = [as_count(body.value(n), largest=OUTPUT_TOKENS_MAX) for n in NATIVE_OUTPUT_LIMITS]
    return min((limit for limit in limits + native if limit is not None), default=None)


def _function_tools(body: Body) -> list[dict[str, object]]:
    """Hosted tools make an engine generate in a loop of its own: only functions are tools here."""
    tools = body.objects("tools")
    for position, tool in enumerate(tools):
        if tool.get("type", "function") != "function":
            param = f"tools[{position}].type"
            message = f"Unsupported value of '{param}': only tools of type 'function' are served."
            raise Unfit(RefusalKind.UNSUPPORTED_PARAMETER, message, param)
    return tools


def _template_kwargs(body: Body, dropped: list[str]) -> tuple[msgspec.Raw, dict[str, object]]:
    kwargs = body.mapping("chat_template_kwargs") or {}
    removed = TEMPLATE_KWARGS_REMOVED & kwargs.keys()
    if not removed:
        return body.fields["chat_template_kwargs"], kwargs
    dropped.extend(f"chat_template_kwargs.{name}" for name in sorted(removed))
    kept = {name: kwargs[name] for name in kwargs if name not in removed}
    return msgspec.Raw(_ENCODE(kept)), kept

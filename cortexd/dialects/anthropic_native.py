"""A message for a neuron that speaks Anthropic's dialect: written by a closed list, read back.

Owns what such a neuron is sent, and its plain answer. The request has been read and checked as the
chat that it would become (`anthropic.py`), so what no chat could carry never gets here. Refuses to
know which neurons speak it. Streams are `anthropic_native_stream.py`'s.
Source: https://docs.anthropic.com/en/api/messages.

Every engine that speaks it makes a chat of it for its template, as we would; where it puts a text
into a message of its own instead of joining it to another, the marks around that message come in
addition: MARK_TOKENS for each block pay for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.anthropic_reply import message_id, usage_object
from cortexd.dialects.anthropic_turns import without_billing as without_lines
from cortexd.dialects.json_text import said_once
from cortexd.dialects.surface import PlainReply
from cortexd.dialects.usage import Seen, Usage, read_usage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cortexd.dialects.body import Body

API_VERSION = b"2023-06-01"
"""What a neuron is told that it speaks: answers are read by this version."""

MARK_TOKENS = 32
"""What a block can cost beyond its text: as many bytes as JSON puts around a message."""

PASSED = frozenset(
    {
        "metadata",
        "output_config",
        "output_format",
        "stop_sequences",
        "temperature",
        "thinking",
        "tool_choice",
        "top_k",
        "top_p",
    }
)
"""Fields that are passed on as they are; others are written here or taken out."""

TOOL_FIELDS = ("name", "description", "input_schema")
"""All that a neuron has to know of a tool."""

_TURN_KEYS = frozenset({"role", "content"})
_BLOCK_KEYS = {
    "text": frozenset({"type", "text", "cache_control", "citations"}),
    "image": frozenset({"type", "source", "cache_control"}),
    "thinking": frozenset({"type", "thinking", "signature"}),
    "tool_use": frozenset({"type", "id", "name", "input", "cache_control", "caller"}),
    "tool_result": frozenset({"type", "tool_use_id", "content", "is_error", "cache_control"}),
}
_VALUE = msgspec.json.Decoder()
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode


def is_plain(turns: list[dict[str, object]], system: object) -> bool:
    """Whether these turns hold no more than the chat that they would become.

    Engines have written into the prompt what such a chat lacks: keys that nobody reads, a tool once
    more for each reference to it, and the bytes of an image that a tool returned.
    """
    return _are_plain(system) and all(
        turn.keys() <= _TURN_KEYS and _are_plain(turn.get("content")) for turn in turns
    )


def _are_plain(content: object, *, only: str = "") -> bool:
    """`only`: the one type of block that there may be; any known one without."""
    if not isinstance(content, list):
        return content is None or isinstance(content, str)
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        keys = _BLOCK_KEYS.get(kind) if isinstance(kind, str) else None
        if keys is None or not block.keys() <= keys or (only and kind != only):
            return False
        if kind == "tool_result" and not _are_plain(block.get("content"), only="text"):
            return False
    return True


def native_body(
    body: Body,
    *,
    model: str,
    output_tokens: int,
    extra: Mapping[str, msgspec.Raw],
) -> bytes:
    """Write a message for a neuron that knows the model as `model`.

    `body`: as the client sent it, already understood as a chat. `extra`: what the operator lets
    through. Turns and system prompt are forwarded byte for byte but for the lines that Claude Code
    writes anew for each request.
    """
    fields: dict[str, object] = {
        "model": model,
        "max_tokens": output_tokens,
        "stream": body.flag("stream"),
        "messages": _turns(body),
    }
    if "system" in body.fields:
        system = _without_billing(body.value("system"))
        if system is None:
            fields["system"] = said_once(body.fields["system"], body.value("system"))[0]
        elif system:
            fields["system"] = system
    if "tools" in body.fields:
        tools = [tool for tool in body.objects("tools") if "input_schema" in tool]
        if tools:
            fields["tools"] = [{n: tool[n] for n in TOOL_FIELDS if n in tool} for tool in tools]
    for name in body.fields:
        if name in PASSED and (name != "tool_choice" or "tools" in fields):
            fields[name] = said_once(body.fields[name], body.value(name))[0]
    return _ENCODE({**fields, **extra})


def _turns(body: Body) -> object:
    """All turns; written again only where a system turn has lines to be taken out."""
    turns = body.objects("messages")
    kept: list[dict[str, object]] = []
    is_changed = False
    for turn in turns:
        content = _without_billing(turn.get("content")) if turn.get("role") == "system" else None
        is_changed |= content is not None
        if content is None:
            kept.append(turn)
        elif content:
            kept.append({**turn, "content": content})
    return kept if is_changed else said_once(body.fields["messages"], turns)[0]


def _without_billing(content: object) -> object:
    """System content without the lines; None where it has none of them."""
    if isinstance(content, str):
        kept = without_lines(content)
        return None if kept == content else kept
    assert isinstance(content, list), "system content was checked when the chat was made of it"
    blocks = [{**block, "text": without_lines(block["text"])} for block in content]
    return None if blocks == content else [block for block in blocks if block["text"]]


def mark_tokens(body: Body) -> int:
    """Bound what marks can cost beyond those of the chat, if every block and every system turn
    became a message of its own, and nothing that is empty were left out.
    """
    turns = body.objects("messages")
    blocks = _blocks_in(body.value("system")) + ("system" in body.fields)
    blocks += sum(_blocks_in(turn.get("content")) for turn in turns)
    return MARK_TOKENS * (blocks + sum(turn.get("role") == "system" for turn in turns))


def _blocks_in(content: object) -> int:
    """The blocks of content, and those in them; a string is none, as a turn has its own marks."""
    if not isinstance(content, list):
        return 0
    inner = (block.get("content") for block in content if isinstance(block, dict))
    return len(content) + sum(map(_blocks_in, inner))


def native_reply(body: bytes, *, model: str, request_id: str) -> PlainReply | None:
    """Read a neuron's plain answer; None when it is no message.

    It is told under our id and the name that the client used, and as it is but for these.
    """
    try:
        reply = _VALUE.decode(body)
        if not isinstance(reply, dict) or reply.get("type") != "message":
            return None
        content = reply.get("content")
        if not isinstance(content, list):
            return None
        usage = native_usage(reply.get("usage"))
        named: dict[str, object] = {"id": message_id(request_id), "model": model}
        if usage is None:
            named["usage"] = usage_object(None)  # programs look into it without asking
        told = _ENCODE({**_FIELDS.decode(body), **named})
        return PlainReply(told, usage, _seen(content))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def native_usage(*reported: object) -> Usage | None:
    """Read `usage` objects of a message, of which later ones complete and correct earlier ones.

    What was read from a cache or written to one counts as prompt: an engine's `input_tokens` are
    only the rest. None where it is not believable, as in `read_usage`.
    """
    told: dict[str, object] = {}
    for usage in reported:
        if isinstance(usage, dict):
            told |= {name: count for name, count in usage.items() if count is not None}
    fresh = told.get("input_tokens")
    cached = told.get("cache_read_input_tokens", 0)
    written = told.get("cache_creation_input_tokens", 0)
    if type(fresh) is not int or type(cached) is not int or type(written) is not int:
        return None
    if min(fresh, cached, written) < 0:
        return None
    return read_usage(
        {
            "prompt_tokens": fresh + cached + written,
            "completion_tokens": told.get("output_tokens"),
            "prompt_tokens_details": {"cached_tokens": cached},
        }
    )


def spoken_bytes(part: Mapping[str, object]) -> int:
    """Count the bytes of generated text in a block, or in a piece of one."""
    size = 0
    for name, value in part.items():
        if isinstance(value, str) and name not in ("type", "signature", "id"):
            size += len(value.encode())
        elif isinstance(value, dict) and value:
            size += len(_ENCODE(value))
    return size


def _seen(content: list[object]) -> Seen:
    sizes = [spoken_bytes(block) for block in content if isinstance(block, dict)]
    return Seen(chunks=sum(map(bool, sizes)), text_bytes=sum(sizes))

"""How much generated text a decoded delta or message of a chat holds.

Owns the names under which engines put generated text. Refuses to know streams and tokens.
"""

from __future__ import annotations

import msgspec

from cortexd.dialects.usage import Seen

_REASONING = ("reasoning_content", "reasoning", "thinking")
_BESIDE_CONTENT = frozenset({*_REASONING, "refusal", "function_call", "tool_calls"})
_ENCODE = msgspec.json.Encoder().encode


def seen_in(choices: list[object]) -> Seen:
    """Count what the choices of a whole answer hold: those that hold something, and its bytes."""
    chunks = text_bytes = 0
    for choice in choices:
        if isinstance(choice, dict):
            size = generated_bytes(choice)
            chunks += size > 0
            text_bytes += size
    return Seen(chunks, text_bytes)


def generated_bytes(choice: dict[str, object]) -> int:
    """Count UTF-8 bytes of text, reasoning and tool calls in one decoded entry of `choices`.

    Reads `delta` (streams), `message` (plain replies) and `text` (older engines). Reasoning that
    comes under two names at once counts once. Asked for every event of every stream, and for most
    of them content is all there is.
    """
    delta = choice.get("delta") or choice.get("message")
    if not isinstance(delta, dict):
        return _text_bytes(choice.get("text"))
    content = delta.get("content")
    total = len(content) if type(content) is str and content.isascii() else _text_bytes(content)
    if len(delta) == 1 and total:
        return total
    if not _BESIDE_CONTENT.isdisjoint(delta):
        total += _beside_content(delta)
    return total + _text_bytes(choice["text"]) if "text" in choice else total


def _beside_content(delta: dict[str, object]) -> int:
    total = max([_text_bytes(delta.get(name)) for name in _REASONING])
    total += _text_bytes(delta.get("refusal")) + _call_bytes(delta.get("function_call"))
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        total += sum([_call_bytes(call.get("function")) for call in calls if type(call) is dict])
    return total


def _call_bytes(function: object) -> int:
    if not isinstance(function, dict):
        return 0
    return _text_bytes(function.get("name")) + _text_bytes(function.get("arguments"))


def _text_bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    return len(_ENCODE(value)) if value else 0

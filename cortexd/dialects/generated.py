"""How much generated text a decoded delta or message of a chat holds.

Owns the names under which engines put generated text. Refuses to know streams and tokens.
"""

from __future__ import annotations

import msgspec

_REASONING = ("reasoning_content", "reasoning", "thinking")
_ENCODE = msgspec.json.Encoder().encode


def generated_bytes(choice: dict[str, object]) -> int:
    """Count UTF-8 bytes of text, reasoning and tool calls in one decoded entry of `choices`.

    Reads `delta` (streams), `message` (plain replies) and `text` (older engines). Reasoning that
    comes under two names at once counts once.
    """
    delta = choice.get("delta") or choice.get("message")
    if not isinstance(delta, dict):
        return _text_bytes(choice.get("text"))
    total = _text_bytes(delta.get("content"))
    if len(delta) == 1 and total:
        return total
    total += max([_text_bytes(delta.get(name)) for name in _REASONING])
    total += _text_bytes(delta.get("refusal")) + _call_bytes(delta.get("function_call"))
    calls = delta.get("tool_calls")
    if isinstance(calls, list):
        total += sum([_call_bytes(call.get("function")) for call in calls if type(call) is dict])
    return total + _text_bytes(choice.get("text"))


def _call_bytes(function: object) -> int:
    if not isinstance(function, dict):
        return 0
    return _text_bytes(function.get("name")) + _text_bytes(function.get("arguments"))


def _text_bytes(value: object) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode())
    return len(_ENCODE(value)) if value else 0

"""How many tokens a chat's prompt really has, by the word of an engine that would read it.

Owns the question, which is the chat itself or a part of it, and what a believable answer is.
Refuses to know when it is worth asking (gateway/counting.py) and which engines can answer
(engine_traits.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.fields import HARMLESS, READ_HERE, RENDERED
from cortexd.dialects.prompt_size import rendered_bytes
from cortexd.dialects.usage import TOKENS_LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cortexd.dialects.engine_traits import Count

_LONG_TALES = frozenset({"documents", "reasoning_effort"})
"""Fields that a template tells at length, in more words of its own than their bytes pay for."""

_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder()
_ENCODE = msgspec.json.Encoder().encode


def question(chat: bytes, count: Count) -> bytes:
    """What is asked about a chat that was written for this engine."""
    if not count.fields:
        return chat
    fields = _FIELDS.decode(chat)
    return _ENCODE({name: raw for name, raw in fields.items() if name in count.fields})


def uncounted_tokens(fields: Mapping[str, msgspec.Raw], count: Count) -> int | None:
    """Bound what a prompt can have beyond what is counted: fields that no question can hold.

    `fields`: those of the chat. None where nothing bounds it.
    """
    if not count.fields:
        return 0
    uncounted = fields.keys() - count.fields - HARMLESS - READ_HERE
    if not uncounted <= RENDERED - _LONG_TALES:
        return None
    return sum(rendered_bytes(bytes(fields[name])) for name in uncounted)


def read_count(body: bytes, count: Count, *, least: int) -> int | None:
    """Read the answer; None for one that is not believable.

    `least`: what the prompt is sure to come to, so that no answer makes a request free.
    """
    try:
        answer = _VALUE.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    tokens = answer.get(count.answer) if isinstance(answer, dict) else None
    if type(tokens) is int and max(least, 1) <= tokens < TOKENS_LIMIT:
        return tokens
    return None

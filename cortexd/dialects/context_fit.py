"""Prompts that cannot fit: the fewest tokens a text can be, and the refusal that follows.

Owns a lower bound, so that nothing that would fit is ever refused. Refuses to know neurons: they
count for themselves what this lets pass. Theory: vocabularies hold a few very long tokens, rules
of one repeated character, and none beyond TOKEN_BYTES_MAX bytes; normalisers may drop white space
and what cannot be seen, and join a letter and its marks; templates may leave out anything but what
the user said.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cortexd.dialects.refusals import Refusal, RefusalKind

if TYPE_CHECKING:
    from cortexd.dialects.asked import Asked
    from cortexd.dialects.upper_bound import ModelLimits

TOKEN_BYTES_MAX = 128
"""Longest token of the vocabularies in use, in bytes: one ruled line."""

CHARACTERS_PER_NORMAL = 4
"""Most characters that normalising joins to one (a letter and three marks)."""

_UNSEEN = bytes(range(33)) + b"\x7f"
_NO_ASCII_ALNUM = bytes(byte for byte in range(128) if not chr(byte).isalnum())
_NO_OTHER_ALNUM = re.compile(r"[\0-\x7f\W]+")


def least_text_tokens(text: str) -> int:
    """Count the fewest tokens that any tokenizer in use can make of a text."""
    if len(text) < TOKEN_BYTES_MAX:
        return 0
    if text.isascii():
        return len(text.encode().translate(None, _UNSEEN)) // TOKEN_BYTES_MAX
    if len(text) < TOKEN_BYTES_MAX * CHARACTERS_PER_NORMAL:
        return 0
    return _alnum_characters(text) // CHARACTERS_PER_NORMAL // TOKEN_BYTES_MAX


def _alnum_characters(text: str) -> int:
    """Count what `str.isalnum` is true of, without asking each character."""
    of_ascii = text.encode("ascii", "ignore").translate(None, _NO_ASCII_ALNUM)
    return len(of_ascii) + len(_NO_OTHER_ALNUM.sub("", text))


def least_chat_tokens(messages: list[dict[str, object]]) -> int:
    """Count the fewest tokens of a conversation: of the texts that no template leaves out."""
    tokens = 0
    for message in messages:
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, str):
                tokens += least_text_tokens(content)
            elif isinstance(content, list):
                tokens += sum(map(least_text_tokens, _texts(content)))
    return tokens


def over_context(asked: Asked, limits: ModelLimits) -> Refusal | None:
    """Refuse a prompt that is sure to be longer than the largest context of its model.

    Clients recognise the condition by OpenAI's very words.
    """
    context = limits.context_max
    if context is None or asked.least_tokens <= context:
        return None
    return Refusal(
        RefusalKind.CONTEXT_LENGTH_EXCEEDED,
        f"This model's maximum context length is {context} tokens. However, your messages "
        f"resulted in {asked.least_tokens} tokens at the very least.",
    )


def _texts(content: list[object]) -> list[str]:
    texts = [part.get("text") for part in content if isinstance(part, dict)]
    return [text for text in texts if isinstance(text, str)]

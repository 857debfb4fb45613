"""Facts about JSON text that a decoder does not tell.

Owns the look at bytes between strings. Refuses to know what the JSON means.
"""

from __future__ import annotations

import msgspec

_ENCODE = msgspec.json.Encoder().encode
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])


def outside_strings(text: bytes) -> bytes:
    """Return JSON text without its strings: brackets, commas, colons, numbers, white space.

    Linear in time and memory; for text that is no JSON the result means nothing.
    """
    if b"\\" in text:
        text = text.replace(rb"\\", b"").replace(rb"\"", b"")
    return b"".join(text.split(b'"')[::2])


def said_once(raw: msgspec.Raw, value: object) -> tuple[msgspec.Raw, bytes]:
    """Return what to forward for `raw`, and the compact UTF-8 JSON of its decoded `value`.

    Readers disagree on which of two equal keys counts, so text in which an object says something
    twice is replaced by its compact form, where the last one has won. Other text stays as it is.
    """
    encoded = _ENCODE(value)
    compact = msgspec.Raw(encoded)
    # Most text is compact already, or but for white space: then it says nothing twice.
    if raw == compact or msgspec.json.format(raw, indent=-1) == encoded:
        return raw, encoded
    return (raw if _keys_in(bytes(raw)) == _keys_in(encoded) else compact), encoded


def with_model(text: bytes, decoded: dict[str, object], model: str) -> bytes:
    """Return the JSON object `text` saying `model`; unchanged where it says so or names none."""
    if decoded.get("model", model) == model:
        return text
    return _ENCODE({**_FIELDS.decode(text), "model": model})


def _keys_in(text: bytes) -> int:
    return outside_strings(text).count(b":")

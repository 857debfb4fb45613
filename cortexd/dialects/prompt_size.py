"""How many bytes a prompt can be rendered to, and what in it no number of bytes bounds.

Owns the walk over decoded messages and the growth that a chat template can cause by writing JSON
out again. Refuses to know models and limits: `upper_bound.py` turns these sizes into tokens.

Theory. A template writes out strings that stand in the messages; the quotes, keys and braces of
the message pay for the marks that it puts around them. Three things can make the text longer than
its JSON: a tokenizer that normalises to NFC first, a template that writes tool calls or tool
results with `tojson` (indented, ASCII only, HTML-safe) or says some of it again (tools before equal
messages, the name of a tool at each result), and media, whose bytes say nothing.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import accumulate
from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.asked import PromptSize
from cortexd.dialects.body import invalid, printable
from cortexd.dialects.json_text import outside_strings

if TYPE_CHECKING:
    from collections.abc import Sequence

IMAGE, AUDIO, FILE = "image", "audio", "file"

MEDIA = {
    "image": IMAGE,
    "image_url": IMAGE,
    "input_image": IMAGE,
    "image_pil": IMAGE,
    "image_embeds": IMAGE,
    "images": IMAGE,
    "audio": AUDIO,
    "audio_url": AUDIO,
    "input_audio": AUDIO,
    "audio_embeds": AUDIO,
    "audios": AUDIO,
    "file": FILE,
    "file_id": FILE,
    "input_file": FILE,
    "files": FILE,
    "document": FILE,
    "video": FILE,
    "video_url": FILE,
    "videos": FILE,
    "prompt_embeds": FILE,
}
"""Names of parts, and of keys in parts and messages, that stand for media in some engine."""

TEXT_PARTS = ("text", "input_text", "output_text", "refusal", "thinking", "reasoning")
"""Types of content parts that are nothing but the text they show."""

PAYLOAD_KEYS = ("url", "data", "file_data")
"""Where a media part keeps its bytes (or their address): never written into the prompt."""

NORMALISED_AT_ONCE = 128
"""Characters per call of `unicodedata`, whose reordering is quadratic in a run of accents."""

NORMALISED_SEAM_BYTES = 16
"""What a run of accents that spans two such calls can differ by from one call."""

EXPONENT_GROWTH_BYTES = 320
"""What a number can grow by when it is written again: llama.cpp writes 1e308 with all its zeros."""

_EXPONENT = re.compile(rb"[0-9][eE]")
_MEDIA_KEYS = frozenset(MEDIA)
_CALL_KEYS = ("tool_calls", "function_call")
_REMARKABLE_KEYS = _MEDIA_KEYS.union(_CALL_KEYS)
_ROLES_OF_TEXT = ("user", "assistant", "system", "developer")
"""Whoever else speaks is taken for a tool: its roles have many names."""

_MEASURED_KEYS = _REMARKABLE_KEYS.union(
    ("arguments", "content", "function", "name", "output", "role", "source", "text", "type")
)
"""What is looked for in messages, parts and calls."""
_PLAIN_KEYS = _MEASURED_KEYS.union(("id", "tool_call_id", "index", "reasoning_content", "refusal"))
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b"[{]},")
_DEPTH_STEPS = bytes.maketrans(b"[{,]}", bytes((2, 2, 1, 0, 0)))
_HTML = b"<>&'\x7f"
_DECODE = msgspec.json.Decoder().decode
_ENCODER = msgspec.json.Encoder()


def prompt_size(
    messages: list[dict[str, object]],
    encoded_messages: bytes,
    rendered_fields: list[bytes],
    *,
    at_each: Sequence[bytes] = (),
) -> PromptSize:
    """Measure a prompt.

    `messages`: decoded. `encoded_messages`: their compact UTF-8 JSON. `rendered_fields`: compact
    JSON of every other field that a template may write into the prompt (tools, schemas, ...);
    `at_each`: of what it may write at each message again. Raises Unfit for a key that some engine
    would take for another one.
    """
    text_bytes = len(encoded_messages) + normalised_growth(encoded_messages)
    # Most messages are a role and a text, of which all is said.
    remarkable = [
        message
        for message in messages
        if type(message.get("content")) is not str
        or message.get("role") not in _ROLES_OF_TEXT
        or not _REMARKABLE_KEYS.isdisjoint(message)
        or not _PLAIN_KEYS.issuperset(message)
    ]
    if not remarkable and not rendered_fields:
        return PromptSize(text_bytes)
    tally = _Tally()
    for message in remarkable:
        tally.add_message(message)
    return PromptSize(
        text_bytes=text_bytes - tally.payload_bytes,
        tools_bytes=tally.growth_bytes()
        + _times_told(messages) * sum(map(rendered_bytes, rendered_fields))
        + len(messages) * sum(map(rendered_bytes, at_each)),
        images=tally.items[IMAGE],
        audios=tally.items[AUDIO],
        files=tally.items[FILE],
        media_bytes=tally.payload_bytes,
    )


def _times_told(messages: list[dict[str, object]]) -> int:
    """How often a template may write tools: before the last user message, says the one of Mistral,
    and takes every message that is equal to it for the last.
    """
    asked = [message for message in messages if message.get("role") == "user"]
    return max(1, asked.count(asked[-1])) if asked else 1


class _Tally:
    """Running sums over messages, and what of them can be written again."""

    def __init__(self) -> None:
        self.items = {IMAGE: 0, AUDIO: 0, FILE: 0}
        self.payload_bytes = 0
        self._results: list[object] = []
        self._calls: list[object] = []
        self._arguments: list[str] = []
        self._name_bytes = 0

    def add_message(self, message: dict[str, object]) -> None:
        _check_keys(message)
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                if isinstance(part, dict):
                    self._add_part(part)
        elif isinstance(content, dict):
            self._add_part(content)
        if not _MEDIA_KEYS.isdisjoint(message):
            for key in _MEDIA_KEYS & message.keys():
                if message[key]:
                    self._add_media(MEDIA[key], message[key])
        self._add_calls(message)
        if message.get("role") not in _ROLES_OF_TEXT:
            self._results.append(content)

    def growth_bytes(self) -> int:
        """Bound what templates add where they write JSON out again: calls and their arguments, and
        what tools said, of which some write only the strings with `tojson`, each below the name of
        a tool that was called before.

        The growth of a row of JSON values is the sum of theirs, so they are measured as one: those
        without escapes, which are quickly looked through, and the others.
        """
        values = [_ENCODER.encode(calls) for calls in self._calls]
        odd: list[bytes] = []
        for arguments in self._arguments:
            (values if _is_json(arguments) else odd).append(arguments.encode())
        plain = [value for value in values if b"\\" not in value]
        escaped = [value for value in values if b"\\" in value]
        rows = [b"\n".join(row) for row in (plain, escaped) if row]
        growth = sum(map(_rewriting_growth, rows)) + sum(map(_rewriting_growth, odd))
        if self._results:
            growth += _escaping_growth(_ENCODER.encode(self._results))
            growth += len(self._results) * self._name_bytes
        return growth

    def _add_part(self, part: dict[str, object]) -> None:
        _check_keys(part)
        media = [key for key in _MEDIA_KEYS & part.keys() if part[key] is not None]
        for key in media:
            self._add_media(MEDIA[key], part[key])
        kind = part.get("type", "text")
        if not media and kind not in TEXT_PARTS:
            self.items[MEDIA.get(kind, FILE) if isinstance(kind, str) else FILE] += 1

    def _add_media(self, medium: str, item: object) -> None:
        self.items[medium] += max(1, len(item)) if isinstance(item, list) else 1
        if isinstance(item, str) and item.startswith("data:"):
            self.payload_bytes += len(item.encode())
        if isinstance(item, dict):
            for key in PAYLOAD_KEYS:
                payload = item.get(key)
                if isinstance(payload, str):
                    self.payload_bytes += len(payload.encode())

    def _add_calls(self, message: dict[str, object]) -> None:
        """Templates write the calls out again, and their arguments as parsed JSON."""
        for key in _CALL_KEYS:
            calls = message.get(key)
            if not calls:
                continue
            self._calls.append(calls)
            for call in calls if isinstance(calls, list) else [calls]:
                if isinstance(call, dict):
                    _check_keys(call)
                    function = call.get("function")
                    self._add_function(function if isinstance(function, dict) else call)

    def _add_function(self, function: dict[str, object]) -> None:
        _check_keys(function)
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            self._arguments.append(arguments)
        name = _ENCODER.encode(function.get("name"))
        self._name_bytes = max(self._name_bytes, rendered_bytes(name))


def _check_keys(said: dict[str, object]) -> None:
    """Refuse a key that is one of those that are measured but for the case of its letters: engines
    written in Go read it as that one (https://pkg.go.dev/encoding/json#Unmarshal).
    """
    if not _PLAIN_KEYS.issuperset(said):
        for key in said.keys() - _PLAIN_KEYS:
            if key.casefold() in _MEASURED_KEYS:
                invalid(printable(key), f"must be spelled '{key.casefold()}'")


def _is_json(text: str) -> bool:
    try:
        _DECODE(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def rendered_bytes(encoded: bytes) -> int:
    """Bound the length of compact JSON written again with indent=4, ASCII only and HTML-safe.

    Computed, not carried out: indenting deeply nested JSON takes memory in the square of its size.
    Text that is no JSON gives a number, too, at least its own length.
    """
    return len(encoded) + _rewriting_growth(encoded)


def _rewriting_growth(encoded: bytes) -> int:
    bare = outside_strings(encoded)
    steps = bare.translate(_DEPTH_STEPS, _NOT_STRUCTURE)
    # One deeper is a step of two and one higher none, as bytes have no sign: after i steps the sum
    # is the depth and i.
    depths = sum(accumulate(steps)) - len(steps) * (len(steps) + 1) // 2
    line_bytes = max(0, 4 * depths) + len(steps)
    number_bytes = EXPONENT_GROWTH_BYTES * len(_EXPONENT.findall(bare))
    return line_bytes + bare.count(b":") + number_bytes + _escaping_growth(encoded)


def _escaping_growth(encoded: bytes) -> int:
    r"""Count what `tojson` adds: `\u003c` for the four HTML characters, DEL and all but ASCII."""
    growth = 5 * (len(encoded) - len(encoded.translate(None, _HTML)))
    if not encoded.isascii():
        text = encoded.decode()
        ascii_bytes = len(text.encode("ascii", "ignore"))
        units = len(text.encode("utf-16-le")) // 2
        growth += 6 * (units - ascii_bytes) - (len(encoded) - ascii_bytes)
    return growth


def normalised_growth(encoded: bytes) -> int:
    """Bound the bytes that NFC normalisation adds to UTF-8 text; 0 when it adds none."""
    if encoded.isascii():
        return 0
    text = encoded.decode()
    growth = 0
    for start in range(0, len(text), NORMALISED_AT_ONCE):
        piece = text[start : start + NORMALISED_AT_ONCE]
        if unicodedata.combining(piece[0]):
            growth += NORMALISED_SEAM_BYTES
        if not unicodedata.is_normalized("NFC", piece):
            normal = unicodedata.normalize("NFC", piece)
            growth += max(0, len(normal.encode()) - len(piece.encode()))
    return growth

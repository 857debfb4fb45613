"""How many bytes a prompt can be rendered to, and what in it no number of bytes bounds.

Owns the walk over decoded messages and the growth that a chat template can cause by writing JSON
out again. Refuses to know models and limits: `upper_bound.py` turns these sizes into tokens.

Theory. A template writes out strings that stand in the messages; the quotes, keys and braces of
the message pay for the marks that it puts around them. Three things can make the text longer than
its JSON: a tokenizer that normalises to NFC first, a template that writes tool calls or tool
results with `tojson` (indented, ASCII only, HTML-safe), and media, whose bytes say nothing.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import accumulate

import msgspec

from cortexd.dialects.asked import PromptSize
from cortexd.dialects.json_text import outside_strings

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

EXPONENT_GROWTH_BYTES = 16
"""What a number can grow by when it is written again: 1e15 becomes 1000000000000000.0."""

_EXPONENT = re.compile(rb"[0-9][eE]")
_DEPTH_STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1, ord(","): 0}
_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in _DEPTH_STEP)
_ENCODE = msgspec.json.Encoder().encode


def prompt_size(
    messages: list[dict[str, object]], encoded_messages: bytes, rendered_fields: list[bytes]
) -> PromptSize:
    """Measure a prompt.

    `messages`: decoded. `encoded_messages`: their compact UTF-8 JSON. `rendered_fields`: compact
    JSON of every other field that a template may write into the prompt (tools, schemas, ...).
    """
    tally = _Tally()
    for message in messages:
        tally.add_message(message)
    text_bytes = len(encoded_messages) - tally.payload_bytes
    text_bytes += normalised_growth(encoded_messages)
    return PromptSize(
        text_bytes=text_bytes,
        tools_bytes=tally.growth_bytes + sum(map(rendered_bytes, rendered_fields)),
        images=tally.items[IMAGE],
        audios=tally.items[AUDIO],
        files=tally.items[FILE],
        media_bytes=tally.payload_bytes,
    )


class _Tally:
    """Running sums over messages."""

    def __init__(self) -> None:
        self.items = {IMAGE: 0, AUDIO: 0, FILE: 0}
        self.payload_bytes = 0
        self.growth_bytes = 0

    def add_message(self, message: dict[str, object]) -> None:
        content = message.get("content")
        if isinstance(content, list):
            for part in content:
                if isinstance(part, dict):
                    self._add_part(part)
        elif isinstance(content, dict):
            self._add_part(content)
        for key in MEDIA.keys() & message.keys():
            if message[key]:
                self._add_media(MEDIA[key], message[key])
        if message.get("tool_calls") or message.get("function_call"):
            self._add_calls(message)
        elif message.get("role") in ("tool", "function", "ipython"):
            # Some templates write tool results with `tojson`, strings included.
            self.growth_bytes += _escaping_growth(_ENCODE(content))

    def _add_part(self, part: dict[str, object]) -> None:
        media = MEDIA.keys() & part.keys()
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
        for key in ("tool_calls", "function_call"):
            calls = message.get(key)
            if not calls:
                continue
            self.growth_bytes += _rewriting_growth(_ENCODE(calls))
            for call in calls if isinstance(calls, list) else [{"function": calls}]:
                function = call.get("function") if isinstance(call, dict) else None
                arguments = function.get("arguments") if isinstance(function, dict) else None
                if isinstance(arguments, str):
                    self.growth_bytes += _rewriting_growth(arguments.encode())


def rendered_bytes(encoded: bytes) -> int:
    """Bound the length of compact JSON written again with indent=4, ASCII only and HTML-safe.

    Computed, not carried out: indenting deeply nested JSON takes memory in the square of its size.
    Text that is no JSON gives a number, too, at least its own length.
    """
    return len(encoded) + _rewriting_growth(encoded)


def _rewriting_growth(encoded: bytes) -> int:
    bare = outside_strings(encoded)
    structure = bare.translate(None, _NOT_STRUCTURE)
    depths = accumulate(map(_DEPTH_STEP.__getitem__, structure))
    line_bytes = max(0, 4 * sum(depths)) + len(structure)
    number_bytes = EXPONENT_GROWTH_BYTES * len(_EXPONENT.findall(bare))
    return line_bytes + bare.count(b":") + number_bytes + _escaping_growth(encoded)


def _escaping_growth(encoded: bytes) -> int:
    r"""Count what `tojson` adds: `\u003c` for the four HTML characters, DEL and all but ASCII."""
    growth = 5 * sum(map(encoded.count, (b"<", b">", b"&", b"'", b"\x7f")))
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

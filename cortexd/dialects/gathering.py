"""A plain answer by way of a stream, for engines that a hang-up stops only while they stream.

Owns the gathering: the stream is watched, counted, cut and failed as if a client read it, and what
a client would have got is put together instead. The whole is then read as any plain answer is.
Refuses to know which engines need it (engine_traits.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.assembly import Assembly
from cortexd.dialects.chat_stream import ChatStream

if TYPE_CHECKING:
    from cortexd.dialects.refusals import Refusal
    from cortexd.dialects.sse import Event

STREAM_BYTES_MAX = 256 * 1024 * 1024
"""The longest stream that is gathered: about a million chunks, of which far less is kept."""

_ENCODE = msgspec.json.Encoder().encode


class ChatGathering(ChatStream):
    """A `surface.Gathering` of chunks with choices. The arguments are those of `ChatStream`."""

    def __init__(self, *, model: str, output_tokens_max: int, choices: int) -> None:
        super().__init__(
            include_usage=True, model=model, output_tokens_max=output_tokens_max, choices=choices
        )
        self._assembly = Assembly(is_chat=self.object_name == ChatStream.object_name)
        self._bytes = 0

    def feed(self, data: bytes) -> bytes:
        """See `Watcher`. Fails where there is no end to it."""
        self._bytes += len(data)
        if self._bytes > STREAM_BYTES_MAX:
            return self._fail("too_long", "The neuron's answer is too long.")
        return super().feed(data)

    def whole(self) -> bytes:
        """See `Gathering`."""
        return _ENCODE(self._assembly.whole())

    def _told(self, event: Event, chunk: dict[str, object]) -> bytes:
        self._assembly.add(chunk)
        return b""

    def _told_comment(self, raw: bytes) -> bytes:
        return b""

    def _end_failed(self, refusal: Refusal) -> bytes:
        return b""

    def _end_whole(self) -> bytes:
        return b""

    def _end_cut(self) -> bytes:
        for index in self._cut_choices():
            self._assembly.end(index, "length")
        return b""

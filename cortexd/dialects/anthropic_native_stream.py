"""A stream of Anthropic's events on its way to the client: passed on, watched, and ended properly.

Owns what a client may see of the stream of a neuron that speaks the dialect itself, and what is
counted on the way. Refuses to know sockets and budgets: bytes in, bytes out, facts beside them.
Source: https://docs.anthropic.com/en/docs/build-with-claude/streaming.

Theory of operation. As in `chat_stream.py` the stream is open until it is done, cut, failed or
closed, and drops all bytes after that. What ends a message (`message_delta` with a stop reason, and
`message_stop`) is held back until `close`, so that its client reads it after it was settled. The
beginning is told once, by whoever comes first: a client that waits has been told ours. Kinds of
events that nobody knows are dropped, since nobody could count what they say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from cortexd.dialects.anthropic_errors import error_event
from cortexd.dialects.anthropic_native import native_usage, spoken_bytes
from cortexd.dialects.anthropic_reply import message_id, usage_object
from cortexd.dialects.anthropic_stream import PING, STOP, begin_message, write_named
from cortexd.dialects.neuron_errors import read_complaint
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.sse import Event, Events, EventTooLarge, write_event
from cortexd.dialects.usage import Seen

if TYPE_CHECKING:
    from cortexd.dialects.usage import Usage

_DONE = b"[DONE]"
_VALUE = msgspec.json.Decoder()


class NativeStream:
    """Filter of one stream: a `surface.Watcher`.

    `model`: the name the client used. `output_tokens_max`: as the neuron was told.
    """

    def __init__(self, *, model: str, request_id: str, output_tokens_max: int) -> None:
        self.notes: frozenset[str] = frozenset()
        self.failure: str | None = None
        self.fault: str | None = None
        self.cut = False
        self.done = False
        self.usage: Usage | None = None
        self._model = model
        self._request_id = request_id
        self._output_max = output_tokens_max
        self._events = Events()
        self._chunks = 0
        self._text_bytes = 0
        self._has_begun = False
        self._first_usage: object = None
        self._open: int | None = None
        self._end = b""

    @property
    def seen(self) -> Seen:
        """What was generated so far, counted also where it was not passed on."""
        return Seen(chunks=self._chunks, text_bytes=self._text_bytes)

    @property
    def finished(self) -> bool:
        """Whether the event that says why it stopped has come."""
        return bool(self._end)

    def head(self) -> bytes:
        """Return the beginning of the message, once."""
        if self._has_begun:
            return b""
        self._has_begun = True
        return begin_message(self._request_id, self._model) + PING

    def heartbeat(self) -> bytes:
        """Return a ping, after the head."""
        return self.head() or PING

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the last bytes of a stream that never got beyond its head."""
        return self._end_failed(refusal)

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the neuron; return the bytes that the client gets now."""
        if self._is_over():
            return b""
        try:
            events = self._events.feed(data)
        except EventTooLarge:
            return self._fail("event_too_large", "The neuron sent an event that is too large.")
        return self._pass_all(events)

    def close(self) -> bytes:
        """Return the client's last bytes; what is not whole ends in a failure."""
        last = b"" if self._is_over() else self._end_events()
        if self.cut:
            return last + self._end_cut()
        if self.failure is None and not self.finished:
            self._fail("incomplete", "The neuron ended the stream before the answer was complete.")
        if self.failure is not None:
            return last + self._end_failed(Refusal(RefusalKind.UPSTREAM_FAILED, self.failure))
        return last + self._end + STOP

    def _end_events(self) -> bytes:
        try:
            return self._pass_all(self._events.end())
        except EventTooLarge:
            return b""

    def _fail(self, fault: str, message: str) -> bytes:
        self.fault, self.failure = fault, message
        return b""

    def _is_over(self) -> bool:
        return self.done or self.cut or self.failure is not None

    def _pass_all(self, events: list[Event]) -> bytes:
        passed_on: list[bytes] = []
        for event in events:
            passed_on.append(self._pass_on(event))
            if self._is_over():
                break
        return b"".join(passed_on)

    def _pass_on(self, event: Event) -> bytes:
        if event.data is None:
            return self.heartbeat() if event.raw.startswith(b":") else b""
        if event.data.strip() == _DONE:
            return b""
        try:
            told = _VALUE.decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            told = None
        if not isinstance(told, dict):
            return self._fail("garbage", "The neuron sent an event that is none of a message.")
        kind = told.get("type")
        if kind == "error" or told.get("error"):
            saying = read_complaint(told).saying
            return self._fail("error_event", f"The neuron failed: {saying or 'no reason given.'}")
        return self._pass_on_kind(kind, event, told)

    def _pass_on_kind(self, kind: object, event: Event, told: dict[str, object]) -> bytes:
        match kind:
            case "message_start":
                return self._begin(told.get("message"))
            case "ping":
                return self.heartbeat()
            case "content_block_start":
                return self._pass_on_part("content_block", event, told)
            case "content_block_delta":
                return self._pass_on_part("delta", event, told)
            case "content_block_stop":
                self._open = None
                return self.head() + _framed(event, kind)
            case "message_delta":
                return self._hold_end(told)
            case "message_stop":
                self.done = True
        return b""

    def _begin(self, message: object) -> bytes:
        """Tell the neuron's own beginning under our names, unless a beginning has been told."""
        if not isinstance(message, dict):
            return self._fail("garbage", "The neuron sent an event that is none of a message.")
        self._first_usage = message.get("usage")
        if self._has_begun:
            return b""
        self._has_begun = True
        usage: dict[str, object] = dict(usage_object(None))
        if isinstance(self._first_usage, dict):
            usage |= {name: told for name, told in self._first_usage.items() if told is not None}
        named = {"id": message_id(self._request_id), "model": self._model, "usage": usage}
        return write_named(b"message_start", message={**message, **named}) + PING

    def _pass_on_part(self, name: str, event: Event, told: dict[str, object]) -> bytes:
        """Pass on a block's beginning or a piece of one, and count what it says."""
        part, index = told.get(name), told.get("index")
        if not isinstance(part, dict) or type(index) is not int:
            return self._fail("garbage", "The neuron sent an event that is none of a message.")
        said = spoken_bytes(part)
        if said:
            self._chunks += 1
            self._text_bytes += said
        if self._chunks > self._output_max:
            self.cut = True
            return b""
        self._open = index
        kind = b"content_block_start" if name == "content_block" else b"content_block_delta"
        return self.head() + _framed(event, kind.decode())

    def _hold_end(self, told: dict[str, object]) -> bytes:
        """Keep what ends the message; its usage is the last word on what it cost."""
        reported, delta = told.get("usage"), told.get("delta")
        if isinstance(reported, dict) and reported.get("output_tokens") is not None:
            self.usage = native_usage(self._first_usage, reported) or self.usage
        if isinstance(delta, dict) and delta.get("stop_reason"):
            usage = usage_object(self.usage, output_tokens=self._chunks)
            del told["type"]
            self._end = write_named(b"message_delta", **{**told, "usage": usage})
        return b""

    def _end_cut(self) -> bytes:
        usage = usage_object(self.usage, output_tokens=min(self._chunks, self._output_max))
        delta = {"stop_reason": "max_tokens", "stop_sequence": None}
        ended = write_named(b"message_delta", delta=delta, usage=usage)
        return self.head() + self._end_block() + ended + STOP

    def _end_failed(self, refusal: Refusal) -> bytes:
        return self._end_block() + error_event(refusal, request_id=self._request_id)

    def _end_block(self) -> bytes:
        index, self._open = self._open, None
        return b"" if index is None else write_named(b"content_block_stop", index=index)


def _framed(event: Event, kind: str) -> bytes:
    """An event as it came, with the name that SDKs need where the neuron gave it none."""
    if event.name == kind.encode():
        return event.raw
    return write_event(event.data or b"", name=kind.encode())

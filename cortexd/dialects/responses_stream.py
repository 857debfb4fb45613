"""A neuron's stream of a response on its way to the client: passed on, watched, ended properly.

Owns what a client may see of the typed events of `POST /v1/responses` and what is counted on the
way. Refuses to know sockets and budgets: bytes in, bytes out, facts beside them.

Theory of operation. Events pass as they come, each with its `type` and a `sequence_number` (some
engines leave that out), under the name that the client used for the model. The last one
(`response.completed` or `response.incomplete`) is held back and written by `close`, so that a
client cannot have read the end before the answer is settled. A stream that breaks, or goes beyond
its output, gets a last event of our own making, around what the neuron said of the response. There
is no [DONE] on this path; one that comes is dropped.
"""

from __future__ import annotations

import msgspec

from cortexd.dialects.chat_stream import HEARTBEAT
from cortexd.dialects.neuron_errors import read_complaint
from cortexd.dialects.refusals import Refusal, code_of
from cortexd.dialects.sse import Event, Events, EventTooLarge, write_event
from cortexd.dialects.usage import Seen, Usage, read_usage

EVENT_BYTES_MAX = 16 << 20
"""Longest event: the last one repeats the whole answer."""

_WHOLE = ("response.completed", "response.incomplete")
_BROKEN = ("response.failed", "response.cancelled", "error")
_DONE = b"[DONE]"
_NO_EVENT = "The neuron sent an event that is no event of a response."
_VALUE = msgspec.json.Decoder()
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode


def response_usage(response: dict[str, object]) -> Usage | None:
    """Read the `usage` of a decoded response; None when it is not believable.

    Example: `{"input_tokens": 12, "output_tokens": 3, "input_tokens_details": {...}}`.
    """
    usage = response.get("usage")
    if not isinstance(usage, dict):
        return None
    return read_usage(
        {
            "prompt_tokens": usage.get("input_tokens"),
            "completion_tokens": usage.get("output_tokens"),
            "prompt_tokens_details": usage.get("input_tokens_details"),
        }
    )


def output_seen(output: list[object]) -> Seen:
    """Count what the items of a whole response hold: pieces that are not empty, and their bytes."""
    sizes: list[int] = []
    for item in output:
        if not isinstance(item, dict):
            continue
        parts = [item]
        for name in ("content", "summary"):
            inner = item.get(name)
            parts += inner if isinstance(inner, list) else []
        for part in parts:
            if isinstance(part, dict):
                texts = (part.get(name) for name in ("text", "refusal", "arguments", "input"))
                sizes += [len(text.encode()) for text in texts if isinstance(text, str)]
    return Seen(chunks=sum(map(bool, sizes)), text_bytes=sum(sizes))


class ResponsesStream:
    """Filter of one stream: a `surface.Watcher`.

    `model`: the name the client used. `output_tokens_max`: as the neuron was told.
    """

    def __init__(self, *, model: str, output_tokens_max: int) -> None:
        self.notes: frozenset[str] = frozenset()
        self.failure: str | None = None
        self.fault: str | None = None
        self.cut = False
        self.done = False
        self.usage: Usage | None = None
        self._model = model
        self._output_max = output_tokens_max
        self._events = Events(event_bytes_max=EVENT_BYTES_MAX)
        self._chunks = 0
        self._text_bytes = 0
        self._next_number = 0
        self._response: dict[str, object] = {}
        self._items: list[msgspec.Raw] = []
        self._last = b""

    @property
    def seen(self) -> Seen:
        """What was generated so far, counted also where it was not passed on."""
        return Seen(chunks=self._chunks, text_bytes=self._text_bytes)

    @property
    def finished(self) -> bool:
        """Whether the event that ends a response has come."""
        return bool(self._last)

    def head(self) -> bytes:
        """Return nothing: a response begins with the neuron's first event."""
        return b""

    def heartbeat(self) -> bytes:
        """Return a comment; readers of event streams skip it."""
        return HEARTBEAT

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the last bytes of a stream that never got beyond its head."""
        error = {"code": code_of(refusal), "message": refusal.message}
        return self._own_end("failed", error=error)

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the neuron; return the bytes that the client gets now."""
        if self._is_over():
            return b""
        try:
            return self._pass_all(self._events.feed(data))
        except EventTooLarge:
            return self._fail("event_too_large", "The neuron sent an event that is too large.")

    def close(self) -> bytes:
        """Return the client's last bytes; the neuron's have ended, or are no longer read."""
        last = b""
        if not self._is_over():
            try:
                last = self._pass_all(self._events.end())
            except EventTooLarge:
                self._fail("event_too_large", "The neuron sent an event that is too large.")
        if self.cut:
            details = {"reason": "max_output_tokens"}
            return last + self._own_end("incomplete", incomplete_details=details)
        if self.failure is None and not self.finished:
            self._fail("incomplete", "The neuron ended the stream before the answer was complete.")
        if self.failure is not None:
            error = {"code": "upstream_failed", "message": self.failure}
            return last + self._own_end("failed", error=error)
        return last + self._last

    def _is_over(self) -> bool:
        return self.done or self.cut or self.failure is not None

    def _fail(self, fault: str, message: str) -> bytes:
        self.fault, self.failure = fault, message
        return b""

    def _pass_all(self, events: list[Event]) -> bytes:
        passed_on: list[bytes] = []
        for event in events:
            passed_on.append(self._pass_on(event))
            if self._is_over():
                break
        return b"".join(passed_on)

    def _pass_on(self, event: Event) -> bytes:
        if event.data is None:
            return event.raw
        if event.data.strip() == _DONE:
            self.done = True
            return b""
        try:
            decoded = _VALUE.decode(event.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._fail("garbage", _NO_EVENT)
        if not isinstance(decoded, dict):
            return self._fail("garbage", _NO_EVENT)
        kind = decoded.get("type") or event.name.decode("latin-1")
        if kind in _BROKEN or decoded.get("error"):
            return self._fail_as_told(decoded)
        if not isinstance(kind, str) or not kind:
            return self._fail("garbage", _NO_EVENT)
        return self._pass_typed(event, decoded, kind)

    def _fail_as_told(self, decoded: dict[str, object]) -> bytes:
        response = decoded.get("response")
        saying = read_complaint(response if isinstance(response, dict) else decoded).saying
        if isinstance(response, dict):
            self.usage = response_usage(response) or self.usage
        return self._fail("error_event", f"The neuron failed: {saying or 'no reason given.'}")

    def _pass_typed(self, event: Event, decoded: dict[str, object], kind: str) -> bytes:
        response = decoded.get("response")
        if isinstance(response, dict):
            self.usage = response_usage(response) or self.usage
        if kind.endswith(".delta"):
            self._count(decoded.get("delta"))
        if self._is_beyond(is_end=kind in _WHOLE):
            self.cut = True
            return b""
        data = self._told(event.data or b"", decoded, kind)
        if kind in _WHOLE:
            self._last = write_event(data, name=kind.encode())
            self.done = True
            return b""
        return write_event(data, name=kind.encode())

    def _count(self, delta: object) -> None:
        if isinstance(delta, str) and delta:
            self._chunks += 1
            self._text_bytes += len(delta.encode())

    def _is_beyond(self, *, is_end: bool) -> bool:
        """Whether more came than was asked for; a usage that comes with the end cuts nothing."""
        if self._chunks > self._output_max:
            return True
        if self.usage is None or is_end:
            return False
        return self.usage.completion_tokens > self._output_max

    def _told(self, data: bytes, decoded: dict[str, object], kind: str) -> bytes:
        """Write an event with what every client needs of it; other values stay as they are."""
        number = decoded.get("sequence_number")
        if kind.endswith(".delta") and number == self._next_number and "type" in decoded:
            self._next_number += 1
            return data
        fields: dict[str, object] = dict(_FIELDS.decode(data))
        fields.setdefault("type", kind)
        if type(number) is not int or number < self._next_number:
            number = fields["sequence_number"] = self._next_number
        self._next_number = number + 1
        response = fields.get("response")
        if isinstance(response, msgspec.Raw) and isinstance(decoded["response"], dict):
            self._response = dict(_FIELDS.decode(response))
            self._response["model"] = msgspec.Raw(_ENCODE(self._model))
            fields["response"] = self._response
        if kind == "response.output_item.done" and isinstance(fields.get("item"), msgspec.Raw):
            self._items.append(msgspec.Raw(bytes(_FIELDS.decode(data)["item"])))
        return _ENCODE(fields)

    def _own_end(self, status: str, **more: object) -> bytes:
        """Write the last event of a response that the neuron did not end as it should."""
        kind, self._response = f"response.{status}", self._own_response(status, **more)
        event = {"type": kind, "sequence_number": self._next_number, "response": self._response}
        return write_event(_ENCODE(event), name=kind.encode())

    def _own_response(self, status: str, **more: object) -> dict[str, object]:
        usage = None
        if self.usage is not None:
            usage = {
                "input_tokens": self.usage.prompt_tokens,
                "input_tokens_details": {"cached_tokens": self.usage.cached_prompt_tokens},
                "output_tokens": self.usage.completion_tokens,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": self.usage.total,
            }
        return {
            "id": "resp_broken",
            "object": "response",
            "created_at": 0,
            "model": self._model,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "error": None,
            "incomplete_details": None,
            **self._response,
            "output": self._items,
            "usage": usage,
            "status": status,
            **more,
        }


class ResponsesGathering(ResponsesStream):
    """A `surface.Gathering`: what the last event says is the plain answer."""

    def feed(self, data: bytes) -> bytes:
        """See `surface.Watcher`."""
        super().feed(data)
        return b""

    def close(self) -> bytes:
        """See `surface.Watcher`."""
        super().close()
        return b""

    def whole(self) -> bytes:
        """See `surface.Gathering`."""
        return _ENCODE({"output": self._items, **self._response})

"""Bytes of a text/event-stream <-> its events, under any chunking and any line ending.

Owns the framing. Refuses to know what the events say. Source: the HTML standard, section 9.2.6
(https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation).

Theory. An event ends at an empty line; a line ends at LF, CR LF or CR. A CR that is the last byte
so far may be half of a CR LF, so the event it would end waits for the next byte: that keeps the
cut between two events the same however the bytes arrive. Most streams hold no CR at all, and are
searched for LF LF alone.
"""

from __future__ import annotations

import re

import msgspec

EVENT_BYTES_MAX = 1 << 20
"""Longest event accepted unless told otherwise; a chunk of a chat is a few hundred bytes."""

_EMPTY_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_LINE_END = re.compile(rb"\r\n|\n|\r")
_SEAM_BYTES = 3
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """The stream holds an event longer than allowed; nothing after it can be read."""


class Event(msgspec.Struct, frozen=True):
    r"""One event, comment or empty line.

    `raw`: its bytes with the empty line that ends it; the `raw` of all events in a row are the
    stream, but for a byte order mark: it is one only at the very start, and a client may have had
    something of ours before. `name`: its `event` field, b"" if none. `data`: its data lines joined
    by LF, None if it has none. Example: raw b"data: [DONE]\n\n", name b"", data b"[DONE]".
    """

    raw: bytes
    name: bytes
    data: bytes | None


class Events:
    """Cuts a stream into events."""

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._rest = bytearray()
        self._searched = 0
        self._has_cr = False
        self._at_start = True
        self._has_ended = False

    def feed(self, data: bytes) -> list[Event]:
        """Take the next bytes and return the events that they complete.

        Raises EventTooLarge, but not before every event ahead of the large one was returned.
        """
        if self._at_start or self._has_cr or b"\r" in data:
            self._has_cr = self._has_cr or b"\r" in data
            self._rest += data
            return self._cut([])
        events: list[Event] = []
        if self._rest:
            self._rest += data
            end = self._event_end(0)
            if not 0 < end <= self._event_bytes_max:
                return self._cut(events)
            events.append(self._event(bytes(self._rest[:end])))
            data = bytes(self._rest[end:])
            self._rest.clear()
            self._searched = 0
        cut = self._cut_whole(data, events)
        if cut == len(data):
            return events
        self._rest += data[cut:]
        return self._cut(events)

    def _cut_whole(self, data: bytes, events: list[Event]) -> int:
        """Add the events that bytes without a CR begin with; return where the rest begins.

        Deliberately plain: nearly all events of all streams come this way.
        """
        start = 0
        while (end := data.find(b"\n", start)) > start:
            is_one_line = data.startswith(b"\n", end + 1)
            if not is_one_line:
                end = data.find(b"\n\n", end)
            if end < 0 or end + 2 - start > self._event_bytes_max:
                break
            raw = data[start : end + 2]
            if is_one_line and raw.startswith(b"data: "):
                events.append(Event(raw, b"", raw[6:-2]))
            else:
                events.append(_read_lines(raw))
            start = end + 2
        return start

    def _cut(self, events: list[Event]) -> list[Event]:
        """Add the events that are whole among the bytes so far."""
        start = 0
        while (end := self._event_end(start)) > 0:
            if end - start > self._event_bytes_max:
                self._searched = start
                break
            events.append(self._event(bytes(self._rest[start:end])))
            start = self._searched = end
        del self._rest[:start]
        self._searched -= start
        if len(self._rest) > self._event_bytes_max and not events:
            raise EventTooLarge
        return events

    def end(self) -> list[Event]:
        """Return what the end of the stream completes; an event without its empty line is lost."""
        self._has_ended = True
        return self.feed(b"")

    def _event_end(self, start: int) -> int:
        """Find where the event that begins at `start` ends; 0 if that has not come yet."""
        rest = self._rest
        if not self._has_cr:
            if rest[start : start + 1] == b"\n":
                return start + 1
            found = rest.find(b"\n\n", max(start, self._searched - 1))
            self._searched = len(rest)
            return found + 2 if found >= 0 else 0
        return self._event_end_with_cr(start)

    def _event_end_with_cr(self, start: int) -> int:
        rest = self._rest
        if start < len(rest) and rest[start] in b"\r\n":
            match = _LINE_END.match(rest, start)
        else:
            match = _EMPTY_LINE.search(rest, max(start, self._searched - _SEAM_BYTES))
        if match is None:
            self._searched = len(rest)
            return 0
        end = match.end()
        may_be_half = end == len(rest) and rest.endswith(b"\r") and not self._has_ended
        return 0 if may_be_half else end

    def _event(self, raw: bytes) -> Event:
        if self._at_start:
            self._at_start = False
            raw = raw.removeprefix(_BYTE_ORDER_MARK)
        return _read_lines(raw)


def _read_lines(raw: bytes) -> Event:
    name = b""
    data: list[bytes] = []
    for line in _LINE_END.split(raw) if b"\r" in raw else raw.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return Event(raw=raw, name=name, data=b"\n".join(data) if data else None)


def write_comment(text: bytes) -> bytes:
    """Frame one line that every reader skips."""
    return b": %s\n\n" % text


def write_event(data: bytes, *, name: bytes = b"") -> bytes:
    """Frame JSON as an event. Lines into which somebody has cut it become one."""
    if b"\n" in data:
        data = data.replace(b"\n", b" ")
    prefix = b"event: %s\n" % name if name else b""
    return b"%sdata: %s\n\n" % (prefix, data)

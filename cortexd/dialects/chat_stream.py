"""A neuron's chat stream on its way to the client: passed on, watched, and ended properly.

Owns what a client may see of a `text/event-stream` of chat chunks and what is counted on the way.
Refuses to know sockets and budgets: bytes in, bytes out, facts beside them.

Theory of operation. The stream is *open* until one of four things is set, and drops all bytes
after it:

    done      the neuron sent [DONE]
    cut       it went on beyond the output it was given
    failure   it sent an error, or something that is no chat chunk
    closed    `close` was called: the neuron's bytes have ended

[DONE] is held back, and `close` writes it only when the answer is whole, which is when every
choice has its finish_reason: engines send [DONE] after errors, or end without it after success.
Clients take a stream that just ends for a success, so a broken one ends in an error frame.

`ChatStream` also watches for other dialects: one that tells the same in its own words overrides
what is written (`head`, `heartbeat`, `_told...`, `_end_...`) and leaves the watching as it is.
"""

from __future__ import annotations

import msgspec

from cortexd.dialects.generated import generated_bytes
from cortexd.dialects.neuron_errors import read_complaint
from cortexd.dialects.refusals import Refusal, RefusalKind, error_body
from cortexd.dialects.sse import Event, Events, EventTooLarge, write_comment, write_event
from cortexd.dialects.usage import Seen, Usage, read_usage

INDEX_MAX = 127
"""Largest choice index that is told apart from the first (OpenAI serves 128 choices)."""

HEARTBEAT = write_comment(b"still working")
"""Any other frame would be taken for a chunk."""

_DONE = b"[DONE]"
_NO_CHUNK = "The neuron sent an event that is no chat chunk."
_CHUNK = msgspec.json.Decoder()
_FIELDS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode


class ChatStream:
    """Filter of one stream.

    `include_usage`: the client asked for the usage chunk. `model`: the name the client used.
    `output_tokens_max`: per choice, as the neuron was told. `choices`: `n` of the request.
    After each `feed`: `failure` is what the client is told, and ends in an error frame; `fault` is
    the same in one word, fit for a log (a neuron's message may quote the prompt); `cut`: stop
    reading; `done`: nothing more will come; `usage` is the latest believable one; `notes`: what was
    amiss and is no failure, in single words fit for a log line.
    """

    object_name = "chat.completion.chunk"

    def __init__(
        self, *, include_usage: bool, model: str, output_tokens_max: int, choices: int
    ) -> None:
        self.notes: frozenset[str] = frozenset()
        self.failure: str | None = None
        self.fault: str | None = None
        self.cut = False
        self.done = False
        self.usage: Usage | None = None
        self._include_usage = include_usage
        self._model = model
        self._output_max = output_tokens_max * choices
        self._events = Events()
        self._chunks = 0
        self._text_bytes = 0
        self._open_choices = self._ended_choices = 0  # a bit for each index
        self._first: dict[str, object] = {}

    @property
    def seen(self) -> Seen:
        """What was generated so far, counted also where it was not passed on."""
        return Seen(chunks=self._chunks, text_bytes=self._text_bytes)

    @property
    def finished(self) -> bool:
        """Whether there were choices and each of them has its finish_reason."""
        return bool(self._ended_choices) and not self._open_choices

    def head(self) -> bytes:
        """Return nothing: a chat stream begins with the neuron's first chunk."""
        return b""

    def heartbeat(self) -> bytes:
        """Return a comment, which every reader skips."""
        return HEARTBEAT

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the last bytes of a stream that never got beyond its head."""
        return self._end_failed(refusal)

    def ended_choice(self, index: int) -> dict[str, object]:
        """Write a choice that ends here because its output is used up."""
        return {"index": index, "delta": {}, "finish_reason": "length"}

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the neuron; return the bytes that the client gets now."""
        if self.done or self.cut or self.failure is not None:
            return b""
        try:
            events = self._events.feed(data)
        except EventTooLarge:
            return self._fail("event_too_large", "The neuron sent an event that is too large.")
        return self._pass_on(events[0]) if len(events) == 1 else self._pass_all(events)

    def close(self) -> bytes:
        """Return the client's last bytes; the neuron's have ended, or are no longer read.

        An answer that is not whole becomes a failure here if it was none before.
        """
        last = b"" if self._is_over() else self._end_events()
        if self.cut:
            return last + self._end_cut()
        if self.failure is None and not self.finished:
            self._fail("incomplete", "The neuron ended the stream before the answer was complete.")
        if self.failure is not None:
            return last + self._end_failed(Refusal(RefusalKind.UPSTREAM_FAILED, self.failure))
        return last + self._end_whole()

    def _end_events(self) -> bytes:
        try:
            return self._pass_all(self._events.end())
        except EventTooLarge:
            return b""

    def _fail(self, fault: str, message: str) -> bytes:
        self.fault, self.failure = fault, message
        return b""

    def _pass_all(self, events: list[Event]) -> bytes:
        passed_on: list[bytes] = []
        for event in events:
            passed_on.append(self._pass_on(event))
            if self.done or self.cut or self.failure is not None:
                break
        return b"".join(passed_on)

    def _is_over(self) -> bool:
        return self.done or self.cut or self.failure is not None

    def _pass_on(self, event: Event) -> bytes:
        if event.data is None:
            return self._told_comment(event.raw)
        if event.data.strip() == _DONE:
            self.done = True
            return b""
        try:
            return self._pass_on_chunk(event, _CHUNK.decode(event.data))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._fail("garbage", _NO_CHUNK)

    def _pass_on_chunk(self, event: Event, chunk: object) -> bytes:
        if not isinstance(chunk, dict):
            return self._fail("garbage", _NO_CHUNK)
        if chunk.get("error") or chunk.get("object") == "error" or event.name == b"error":
            saying = read_complaint(chunk).saying
            return self._fail("error_event", f"The neuron failed: {saying or 'no reason given.'}")
        choices = chunk.get("choices")
        if not self._first:
            self._first = {name: chunk[name] for name in ("id", "created") if name in chunk}
        ending = self._count(choices) if isinstance(choices, list) else 0
        reported = chunk.get("usage")
        if reported is not None:
            self.usage = read_usage(reported) or self.usage
        if self._chunks > self._output_max or (self.usage is not None and self._is_beyond(ending)):
            self.cut = True
            return b""
        if ending:
            self._ended_choices |= ending
            self._open_choices &= ~ending
        return self._told(event, chunk)

    def _told(self, event: Event, chunk: dict[str, object]) -> bytes:
        """Write a chunk that was watched, for the client."""
        choices, reported = chunk.get("choices"), chunk.get("usage")
        is_whole = isinstance(choices, list)
        hide_usage = reported is not None and not self._include_usage
        if not choices and (hide_usage or (reported is None and not is_whole)):
            return b""
        model = chunk.get("model", self._model)
        if hide_usage or not is_whole or model != self._model:
            return self._rewritten(event, hide_usage=hide_usage, is_whole=is_whole)
        return event.raw

    def _told_comment(self, raw: bytes) -> bytes:
        return raw

    def _count(self, choices: list[object]) -> int:
        """Count what the choices of a chunk hold; return a bit for each of those that end in it."""
        ending = 0
        for position, choice in enumerate(choices):
            if not isinstance(choice, dict):
                continue
            text_bytes = generated_bytes(choice)
            if text_bytes:
                self._chunks += 1
                self._text_bytes += text_bytes
            index = choice.get("index", position)
            if type(index) is not int or not 0 <= index <= INDEX_MAX:
                index = 0
            bit = 1 << index
            if not self._ended_choices & bit:
                self._open_choices |= bit
                if choice.get("finish_reason"):
                    ending |= bit
        return ending

    def _is_beyond(self, ending: int) -> bool:
        """Whether usage tells of more than was asked for; one that comes with the end cuts
        nothing.
        """
        if self.usage is None or self.usage.completion_tokens <= self._output_max:
            return False
        return not (self._ended_choices | ending) or bool(self._open_choices & ~ending)

    def _rewritten(self, event: Event, *, hide_usage: bool, is_whole: bool) -> bytes:
        """Write a chunk again with our name for the model; every other value stays as it is."""
        fields: dict[str, object] = dict(_FIELDS.decode(event.data or b""))
        if hide_usage:
            del fields["usage"]
        if not is_whole:
            fields["choices"] = []
        fields["model"] = self._model
        return write_event(_ENCODE(fields), name=event.name)

    def _end_failed(self, refusal: Refusal) -> bytes:
        return write_event(error_body(refusal))

    def _end_whole(self) -> bytes:
        return write_event(_DONE)

    def _cut_choices(self) -> list[int]:
        """The choices that end because no more of them is read."""
        cut = self._open_choices or 1 & ~self._ended_choices
        return [index for index in range(INDEX_MAX + 1) if cut >> index & 1]

    def _end_cut(self) -> bytes:
        common = {**self._first, "object": self.object_name, "model": self._model}
        ended = [self.ended_choice(index) for index in self._cut_choices()]
        last = write_event(_ENCODE({**common, "choices": ended})) if ended else b""
        if self._include_usage and self.usage is not None:
            usage = {
                "prompt_tokens": self.usage.prompt_tokens,
                "completion_tokens": self.usage.completion_tokens,
                "total_tokens": self.usage.total,
            }
            last += write_event(_ENCODE({**common, "choices": [], "usage": usage}))
        return last + write_event(_DONE)

"""A neuron's chat stream, told to the client as the events of Anthropic's Messages API.

Owns the grammar of those events. Watching, counting, cutting and failing are `ChatStream`'s.
Source: https://docs.anthropic.com/en/docs/build-with-claude/streaming.

Theory of operation. An answer is a row of blocks: thinking, text, calls of tools. Of the blocks one
is *open*, at most, and the client gets its pieces as they come; those after it *wait* with theirs:

    open text or thinking      ends where another kind of block begins
    open call                  ends where another block has begun and its arguments are whole

Engines may send the pieces of parallel calls in any order, so a call is known by its index and is
not over only because another has begun. Everything that waits is told when the answer ends.
Nothing tells how it ended until then: the stop reason and the usage go out together, last.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from cortexd.dialects.anthropic_errors import error_event
from cortexd.dialects.anthropic_reply import (
    BAD_ARGUMENTS,
    NAMELESS_CALL,
    Call,
    arguments_of,
    message_id,
    parsed_arguments,
    said,
    tool_id,
    usage_object,
    why_stopped,
)
from cortexd.dialects.chat_stream import INDEX_MAX, ChatStream
from cortexd.dialects.sse import Event, write_event

if TYPE_CHECKING:
    from cortexd.dialects.refusals import Refusal

Kind = Literal["thinking", "text", "tool_use"]

PING = b'event: ping\ndata: {"type":"ping"}\n\n'
"""Says nothing, and keeps a silent stream alive."""

STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
"""The end of a whole message."""

_DELTA = (
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":%d,'
    b'"delta":{"type":"%s","%s":'
)
_DELTA_END = b"}}\n\n"
_DELTA_NAMES: dict[Kind, tuple[bytes, bytes]] = {
    "thinking": (b"thinking_delta", b"thinking"),
    "text": (b"text_delta", b"text"),
    "tool_use": (b"input_json_delta", b"partial_json"),
}
_EMPTY = {"text": {"text": ""}, "thinking": {"thinking": "", "signature": ""}}
_ENCODE = msgspec.json.Encoder().encode


class _Block:
    """A content block with all its pieces so far."""

    __slots__ = ("id", "is_over", "kind", "looked_at", "name", "pieces")

    def __init__(self, kind: Kind, *, name: str = "", id: str = "") -> None:
        self.kind: Kind = kind
        self.name = name
        self.id = id
        self.pieces: list[str] = []
        self.is_over = False
        self.looked_at = 0

    def is_complete(self) -> bool:
        """Whether nothing can be missing of a call's arguments.

        Looks again only at twice as many pieces, so that all looks cost what the last one does.
        """
        if len(self.pieces) < max(1, 2 * self.looked_at):
            return False
        if not self.pieces[-1].rstrip().endswith("}"):
            return False
        self.looked_at = len(self.pieces)
        return parsed_arguments("".join(self.pieces)) is not None


class AnthropicStream(ChatStream):
    """Translator of one stream; fed, closed and asked as a `ChatStream` is.

    `model`: the name the client used. `output_tokens_max`: as the neuron was told. `input_tokens`:
    what is said of the prompt until the neuron tells. `stop_sequences`, `hide_thinking`: as the
    client asked.
    """

    def __init__(
        self,
        *,
        model: str,
        request_id: str,
        output_tokens_max: int,
        input_tokens: int = 0,
        stop_sequences: tuple[str, ...] = (),
        hide_thinking: bool = False,
    ) -> None:
        super().__init__(
            include_usage=True, model=model, output_tokens_max=output_tokens_max, choices=1
        )
        self._request_id = request_id
        self._input_tokens = input_tokens
        self._stop_sequences = stop_sequences
        self._hide_thinking = hide_thinking
        self._has_begun = False
        self._ended_by: Call | None = None
        self._block: _Block | None = None
        self._block_index = -1
        self._delta = b""
        self._waiting: list[_Block] = []
        self._calls: list[_Block] = []
        self._calls_by_index: dict[int, _Block] = {}

    def head(self) -> bytes:
        """Return the beginning of the message, once: it may be sent before the neuron answers."""
        if self._has_begun:
            return b""
        self._has_begun = True
        begin = begin_message(self._request_id, self._model, input_tokens=self._input_tokens)
        return begin + PING

    def heartbeat(self) -> bytes:
        """Return what keeps a silent stream alive: Anthropic's own ping, after the head."""
        return self.head() or PING

    def _told_comment(self, raw: bytes) -> bytes:
        """A neuron's sign of life becomes one in this dialect, which has no comments."""
        return self.heartbeat() if raw.startswith(b":") else b""

    def _told(self, event: Event, chunk: dict[str, object]) -> bytes:
        told = b"" if self._has_begun else self.head()
        choices = chunk.get("choices")
        if not isinstance(choices, list):
            return told
        for choice in choices:
            if type(choice) is not dict or _is_another(choice.get("index")):
                continue
            if self._ended_by is None and choice.get("finish_reason"):
                self._ended_by = choice
            delta = choice.get("delta")
            if type(delta) is dict and len(delta) == 1 and type(delta.get("content")) is str:
                told += self._tell("text", delta["content"])
                continue
            thinking, text, calls = said(choice)
            told += self._tell("thinking", thinking) + self._tell("text", text)
            for call in calls:
                told += self._tell_call(call)
        return told

    def _tell(self, kind: Kind, text: str) -> bytes:
        if not text:
            return b""
        block = self._block
        if block is not None and block.kind == kind and not self._waiting:
            return self._piece(text)
        if not self._waiting or self._waiting[-1].kind != kind:
            self._waiting.append(_Block(kind))
        self._waiting[-1].pieces.append(text)
        return self._tell_waiting()

    def _tell_call(self, call: Call) -> bytes:
        name, arguments = arguments_of(call)
        block = self._call_of(call, name)
        block.name = block.name or name
        if block.is_over:
            if arguments.strip():
                self._fail("late_arguments", "The neuron went on with a tool call that was over.")
            return b""
        if arguments:
            block.pieces.append(arguments)
        if block is self._block:
            return self._piece(arguments)
        return self._tell_waiting()

    def _call_of(self, call: Call, name: str) -> _Block:
        """Find the call that a piece belongs to, or begin one.

        By index; engines that send none, or the same for all, tell calls apart by id.
        """
        index, given = call.get("index"), call.get("id")
        id = given if isinstance(given, str) else ""
        if type(index) is int:
            block = self._calls_by_index.get(index)
        else:
            same = [each for each in self._calls if id and each.id == id]
            block = same[0] if same else self._calls[-1] if self._calls else None
        is_another = block is not None and name and id and block.id and id != block.id
        if block is not None and not is_another:
            block.id = block.id or id
            return block
        block = _Block("tool_use", name=name, id=id)
        self._calls.append(block)
        self._waiting.append(block)
        if type(index) is int:
            self._calls_by_index[index] = block
        return block

    def _tell_waiting(self, *, at_end: bool = False) -> bytes:
        """Open the blocks that wait, as far as those before them are over."""
        told: list[bytes] = []
        while self._waiting and (at_end or self._may_end()):
            block = self._waiting[0]
            if block.kind == "tool_use" and not block.name:
                if not at_end:
                    break
                self.notes |= {NAMELESS_CALL}
            else:
                told.append(self._end_block() + self._begin_block(block))
            del self._waiting[0]
        return b"".join(told)

    def _may_end(self) -> bool:
        block = self._block
        return block is None or block.kind != "tool_use" or block.is_complete()

    def _begin_block(self, block: _Block) -> bytes:
        self._block = block
        self._block_index += 1
        self._delta = _DELTA % (self._block_index, *_DELTA_NAMES[block.kind])
        shown: dict[str, object] = {"type": block.kind}
        if block.kind == "tool_use":
            shown |= {"id": self._unique_id(block), "name": block.name, "input": {}}
        else:
            shown |= _EMPTY[block.kind]
        begin = write_named(b"content_block_start", index=self._block_index, content_block=shown)
        return begin + self._piece("".join(block.pieces))

    def _unique_id(self, block: _Block) -> str:
        position = self._calls.index(block)
        if block.id and all(block.id != each.id for each in self._calls[:position]):
            return block.id
        return tool_id(self._request_id, position)

    def _piece(self, text: str) -> bytes:
        if not text or (self._hide_thinking and self._block and self._block.kind == "thinking"):
            return b""
        return self._delta + _ENCODE(text) + _DELTA_END

    def _end_block(self) -> bytes:
        block = self._block
        if block is None:
            return b""
        block.is_over, self._block = True, None
        told = b""
        if block.kind == "thinking":
            delta = {"type": "signature_delta", "signature": ""}
            told = write_named(b"content_block_delta", index=self._block_index, delta=delta)
        return told + write_named(b"content_block_stop", index=self._block_index)

    def _end_whole(self) -> bytes:
        ended_by = self._ended_by or {}
        called = any(each.name for each in self._calls)
        reason, stop = why_stopped(
            ended_by.get("finish_reason"), ended_by, called=called, stops=self._stop_sequences
        )
        if reason == "tool_use":
            whole = [parsed_arguments("".join(each.pieces)) is not None for each in self._calls]
            self.notes |= frozenset() if all(whole) else {BAD_ARGUMENTS}
        return self._end_message(reason, stop)

    def _end_cut(self) -> bytes:
        return self._end_message("max_tokens", None)

    def _end_failed(self, refusal: Refusal) -> bytes:
        return self._end_block() + error_event(refusal, request_id=self._request_id)

    def _end_message(self, reason: str, stop: str | None) -> bytes:
        told = self.head() + self._tell_waiting(at_end=True) + self._end_block()
        if self._block_index < 0:
            told += self._begin_block(_Block("text")) + self._end_block()
        usage = usage_object(
            self.usage, input_tokens=self._input_tokens, output_tokens=self._chunks
        )
        delta = {"stop_reason": reason, "stop_sequence": stop}
        return told + write_named(b"message_delta", delta=delta, usage=usage) + STOP


def _is_another(index: object) -> bool:
    """Whether a choice is not the one that the client asked for."""
    return type(index) is int and 0 < index <= INDEX_MAX


def begin_message(request_id: str, model: str, *, input_tokens: int = 0) -> bytes:
    """Write the event that begins a message of which nothing is known but who asked for it."""
    message: dict[str, object] = {
        "id": message_id(request_id),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": usage_object(None, input_tokens=input_tokens),
    }
    return write_named(b"message_start", message=message)


def write_named(name: bytes, /, **fields: object) -> bytes:
    """Write an event of this name and type."""
    return write_event(_ENCODE({"type": name.decode(), **fields}), name=name)

"""The grammar of Anthropic's message streams, checked event by event, and what a client reads.

Written from the description of the API, without a look at the translator. `read_stream` raises
AssertionError at the first event that no client has to understand.
"""

import json
from typing import Any, Literal

import msgspec

from cortexd.dialects.sse import Event, Events

Json = dict[str, Any]

STOP_REASONS = {
    *("end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"),
    "model_context_window_exceeded",
}
DELTAS = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "signature_delta": ("thinking", "signature"),
    "input_json_delta": ("tool_use", "partial_json"),
}
EMPTY_BLOCKS = {
    "text": {"type": "text", "text": ""},
    "thinking": {"type": "thinking", "thinking": "", "signature": ""},
}


class Told(msgspec.Struct, frozen=True):
    """What a client knows at the end of the bytes it got.

    `content`: the blocks as accumulated; the `input` of a tool is the text of its JSON. `ending`:
    "stop", "error", or None where the bytes just end.
    """

    content: list[Json]
    start: Json
    delta: Json
    usage: Json
    error: Json
    ending: Literal["stop", "error"] | None
    pings: int


class Reader:
    """A client that is stricter than any."""

    def __init__(self) -> None:
        self.start: Json = {}
        self.content: list[Json] = []
        self.is_open = False
        self.delta: Json = {}
        self.usage: Json = {}
        self.error: Json = {}
        self.ending: Literal["stop", "error"] | None = None
        self.pings = 0

    def take(self, event: Event) -> None:
        """Take one event; it has to be the right one at this place."""
        assert self.ending is None, "an event after the end"
        assert event.data is not None, "a comment or an empty event"
        body = json.loads(event.data)
        kind = body.pop("type")
        assert event.name.decode() == kind, "an event whose name is not its type"
        if kind != "error":
            assert bool(self.start) != (kind == "message_start"), "message_start is not the first"
        match kind:
            case "message_start":
                self._message_start(body)
            case "ping":
                assert not body
                self.pings += 1
            case "content_block_start":
                self._block_start(body)
            case "content_block_delta":
                self._block_delta(body)
            case "content_block_stop":
                assert self.is_open, "a block ends twice"
                assert body == {"index": len(self.content) - 1}
                self.is_open = False
            case "message_delta":
                self._message_delta(body)
            case "message_stop":
                assert not body
                assert self.delta, "message_stop before message_delta"
                self.ending = "stop"
            case "error":
                self._error(body)
            case _:
                raise AssertionError(f"an unknown event {kind}")

    def _message_start(self, body: Json) -> None:
        message = body.pop("message")
        assert not body
        assert message.keys() == {
            *("id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage")
        }
        assert (message["type"], message["role"], message["content"]) == (
            "message",
            "assistant",
            [],
        )
        assert message["stop_reason"] is message["stop_sequence"] is None
        assert message["id"].startswith("msg_")
        _check_usage(message["usage"])
        self.start = message

    def _block_start(self, body: Json) -> None:
        assert not self.is_open, "two blocks are open"
        assert not self.delta, "a block after message_delta"
        assert body.pop("index") == len(self.content), "an index is left out or used twice"
        block = body.pop("content_block")
        assert not body
        if block["type"] == "tool_use":
            assert block.keys() == {"type", "id", "name", "input"}
            assert block["input"] == {}
            assert block["id"]
            assert block["id"] not in [each.get("id") for each in self.content]
            assert block["name"]
            block["input"] = ""
        else:
            assert block == EMPTY_BLOCKS[block["type"]]
        self.content.append(block)
        self.is_open = True

    def _block_delta(self, body: Json) -> None:
        assert self.is_open, "a piece of no block"
        block = self.content[body.pop("index")]
        assert block is self.content[-1], "a piece of another block than the open one"
        delta = body.pop("delta")
        assert not body
        wanted, field = DELTAS[delta.pop("type")]
        assert block["type"] == wanted, "a piece of another type than its block"
        assert delta.keys() == {field}
        block["input" if wanted == "tool_use" else field] += delta[field]

    def _message_delta(self, body: Json) -> None:
        assert not self.is_open, "message_delta before the last block has ended"
        assert not self.delta, "two message_deltas"
        assert self.content, "a message without any block"
        self.delta, self.usage = body.pop("delta"), body.pop("usage")
        assert not body
        assert self.delta.keys() == {"stop_reason", "stop_sequence"}
        assert self.delta["stop_reason"] in STOP_REASONS
        is_sequence = isinstance(self.delta["stop_sequence"], str)
        assert is_sequence == (self.delta["stop_reason"] == "stop_sequence")
        _check_usage(self.usage)

    def _error(self, body: Json) -> None:
        assert not self.is_open, "an error within a block"
        assert not self.delta, "an error after the message was whole"
        self.error = body.pop("error")
        assert isinstance(body.pop("request_id"), str)
        assert not body
        assert isinstance(self.error["message"], str)
        assert self.error["type"] in ("api_error", "overloaded_error")
        self.ending = "error"


def _check_usage(usage: Json) -> None:
    assert usage.keys() == {
        *("input_tokens", "cache_creation_input_tokens"),
        *("cache_read_input_tokens", "output_tokens"),
    }
    assert all(type(count) is int and count >= 0 for count in usage.values())


def read_stream(data: bytes) -> Told:
    """Read a stream, or the beginning of one, that keeps to the grammar."""
    reader = Reader()
    events = Events()
    for event in events.feed(data) + events.end():
        reader.take(event)
    return Told(
        reader.content,
        reader.start,
        reader.delta,
        reader.usage,
        reader.error,
        reader.ending,
        reader.pings,
    )

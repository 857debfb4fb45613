"""The bytes of a simulated chat reply: events, the plain object, usage honest or not. Pure."""

import json
from collections.abc import Sequence

import msgspec

from cortexd.demo.switches import UsageLie

DONE = b"[DONE]"

_LIES: dict[UsageLie, object] = {
    UsageLie.ZERO: 0,
    UsageLie.NEGATIVE: -7,
    UsageLie.HUGE: 10**18,
    UsageLie.FLOAT: 12.5,
    UsageLie.STRING: "12",
    UsageLie.NOT_A_NUMBER: float("nan"),
    UsageLie.BOOLEAN: True,
}


class Told(msgspec.Struct, frozen=True):
    """Whether a reply has a `usage` member, and what is in it."""

    present: bool
    usage: dict[str, object] | None = None


class Said(msgspec.Struct, frozen=True):
    """One whole answer, and the thinking before it."""

    text: str
    thoughts: str
    reason: str | None


class ChatFrames(msgspec.Struct, frozen=True):
    """Writes the events of one streamed reply. `created` is in Unix seconds."""

    id: str
    model: str
    created: int
    line_end: bytes = b"\n"

    def event(self, data: bytes) -> bytes:
        """One server-sent event."""
        return event(data, self.line_end)

    def comment(self) -> bytes:
        """A keep-alive that says nothing."""
        return b": keep-alive" + self.line_end * 2

    def role(self) -> bytes:
        """The first chunk of a stream."""
        return self._choice({"role": "assistant", "content": ""}, None, Told(False))

    def piece(self, text: str, *, thought: bool) -> bytes:
        """Some tokens of the answer, or of the thinking before it."""
        return self._choice(
            {"reasoning_content" if thought else "content": text}, None, Told(False)
        )

    def finish(self, reason: str, told: Told) -> bytes:
        """The chunk that ends the choice."""
        return self._choice({}, reason, told)

    def usage(self, told: Told) -> bytes:
        """The chunk without choices that carries the usage."""
        return self._chunk([], told)

    def error(self, message: str) -> bytes:
        """An error in the middle of a stream."""
        return error_event(message, self.line_end)

    def _choice(self, delta: dict[str, str], reason: str | None, told: Told) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return self._chunk([choice], told)

    def _chunk(self, choices: list[dict[str, object]], told: Told) -> bytes:
        chunk: dict[str, object] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if told.present:
            chunk["usage"] = told.usage
            return self.event(encode(chunk))
        return self.event(msgspec.json.encode(chunk))

    def done(self) -> bytes:
        """The event after the last chunk."""
        return self.event(DONE)

    def plain(self, said: Sequence[Said], told: Told) -> bytes:
        """The whole reply to a request that does not stream."""
        choices: list[dict[str, object]] = []
        for index, one in enumerate(said):
            message = {"role": "assistant", "content": one.text}
            if one.thoughts:
                message["reasoning_content"] = one.thoughts
            choices.append(
                {
                    "index": index,
                    "message": message,
                    "logprobs": None,
                    "finish_reason": one.reason,
                }
            )
        return whole_reply(self.id, "chat.completion", self.created, self.model, choices, told)


def event(data: bytes, line_end: bytes) -> bytes:
    """One server-sent event."""
    return b"data: " + data + line_end * 2


def error_event(message: str, line_end: bytes) -> bytes:
    """An error in the middle of a stream of chunks."""
    error = {"message": message, "type": "api_error", "param": None, "code": "engine_failed"}
    return event(msgspec.json.encode({"error": error}), line_end)


def whole_reply(
    reply_id: str,
    kind: str,
    created: int,
    model: str,
    choices: list[dict[str, object]],
    told: Told,
) -> bytes:
    """A plain reply that is made of choices."""
    whole: dict[str, object] = {
        "id": reply_id,
        "object": kind,
        "created": created,
        "model": model,
        "choices": choices,
    }
    if told.present:
        whole["usage"] = told.usage
    return encode(whole)


def tell_usage(
    *,
    prompt_tokens: int,
    completion_tokens: int,
    lie: UsageLie | dict[str, object],
    timing: dict[str, object],
) -> Told:
    """The usage member of a reply that cost these tokens. Only an honest one has `timing`."""
    if isinstance(lie, dict):
        return Told(True, lie)
    match lie:
        case UsageLie.ABSENT:
            return Told(False)
        case UsageLie.NULL:
            return Told(True, None)
        case UsageLie.HONEST:
            return Told(True, _usage(prompt_tokens, completion_tokens) | {"helexa_timing": timing})
        case UsageLie.LOW:
            return Told(True, _usage(prompt_tokens, completion_tokens // 2))
        case _:
            value = _LIES[lie]
            names = ("prompt_tokens", "completion_tokens", "total_tokens")
            return Told(True, dict.fromkeys(names, value))


def _usage(prompt_tokens: int, completion_tokens: int) -> dict[str, object]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def encode(value: dict[str, object]) -> bytes:
    """JSON that may hold NaN, which some engines do send."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()

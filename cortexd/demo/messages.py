"""POST /v1/messages of a simulated neuron: Anthropic's dialect, as several engines speak it too."""

from collections.abc import Sequence
from dataclasses import dataclass

from cortexd.demo.chat import check_prompt
from cortexd.demo.chat_frames import Said, Told, encode, event
from cortexd.demo.generation import Generation
from cortexd.demo.http import Reply, Request
from cortexd.demo.machine import Machine, key_id, principal
from cortexd.demo.prompt import understand_message
from cortexd.demo.writing import Choice, write_reply

_NAMES = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}
_REASONS = {"length": "max_tokens", "stop": "end_turn"}


async def answer_message(machine: Machine, request: Request, reply: Reply) -> None:
    """Answers one request for a message. Raises NeuronError before the first byte if refused."""
    question = understand_message(request.body, request.header(b"content-type"))
    resident = machine.serving(question.model, embeddings=False)
    check_prompt(question, resident)
    async with machine.lines[question.model].admitted(principal(request)):
        generation = Generation(machine, resident.model, question, key_id(request))
        frames = MessageFrames(
            machine.next_reply_id("msg"), question.model, machine.switches.line_end
        )
        await write_reply(
            machine,
            [Choice(generation, frames)],
            reply,
            stream=question.stream,
            include_usage=True,
        )


@dataclass
class MessageFrames:
    """Writes the events of one streamed message, in order: one block for each kind of text."""

    id: str
    model: str
    line_end: bytes
    _index: int = -1
    _kind: str | None = None
    _reason: str | None = None
    _told: Told | None = None

    def comment(self) -> bytes:
        """A keep-alive that says nothing."""
        return self._event("ping")

    def role(self) -> bytes:
        """The beginning of the message."""
        usage = {"input_tokens": 0, "output_tokens": 0}
        return self._event("message_start", message=self._message([], None, usage))

    def piece(self, text: str, *, thought: bool) -> bytes:
        """Some tokens, in a block of their kind."""
        kind = "thinking" if thought else "text"
        opened = b"" if kind == self._kind else self._end_block() + self._begin_block(kind)
        delta = {"type": f"{kind}_delta", kind: text}
        return opened + self._event("content_block_delta", index=self._index, delta=delta)

    def finish(self, reason: str, told: Told) -> bytes:
        """The end of the last block, but not of the message: its usage goes out with its end."""
        self._reason = _REASONS[reason]
        if told.present:
            self._told = told
        return self._end_block()

    def usage(self, told: Told) -> bytes:
        """Nothing yet: the end carries it."""
        self._told = told
        return b""

    def error(self, message: str) -> bytes:
        """An error in the middle of a stream."""
        return self._event("error", error={"type": "api_error", "message": message})

    def done(self) -> bytes:
        """Why it stopped and what was used, and the end."""
        told = b""
        if self._reason is not None:
            delta = {"stop_reason": self._reason, "stop_sequence": None}
            told = self._event("message_delta", delta=delta, **_usage(self._told))
        return told + self._event("message_stop")

    def plain(self, said: Sequence[Said], told: Told) -> bytes:
        """The whole reply to a request that does not stream."""
        [one] = said
        content: list[dict[str, object]] = []
        if one.thoughts:
            content.append({"type": "thinking", "thinking": one.thoughts, "signature": ""})
        content.append({"type": "text", "text": one.text})
        reason = None if one.reason is None else _REASONS[one.reason]
        message = self._message(content, reason, None)
        del message["usage"]
        return encode(message | _usage(told))

    def _begin_block(self, kind: str) -> bytes:
        self._index += 1
        self._kind = kind
        block = {"type": kind, kind: ""}
        return self._event("content_block_start", index=self._index, content_block=block)

    def _end_block(self) -> bytes:
        kind, self._kind = self._kind, None
        return b"" if kind is None else self._event("content_block_stop", index=self._index)

    def _event(self, kind: str, **fields: object) -> bytes:
        name = f"event: {kind}".encode() + self.line_end
        return name + event(encode({"type": kind, **fields}), self.line_end)

    def _message(
        self, content: Sequence[object], reason: str | None, usage: object
    ) -> dict[str, object]:
        return {
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": None,
            "usage": usage,
        }


def _usage(told: Told | None) -> dict[str, object]:
    if told is None or not told.present:
        return {}
    if told.usage is None:
        return {"usage": None}
    return {"usage": {_NAMES.get(name, name): count for name, count in told.usage.items()}}

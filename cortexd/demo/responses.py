"""POST /v1/responses of a simulated neuron: typed events, without memory and without [DONE]."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from cortexd.demo.chat import check_prompt
from cortexd.demo.chat_frames import Said, Told, encode, event
from cortexd.demo.generation import Generation
from cortexd.demo.http import Reply, Request
from cortexd.demo.machine import Machine, key_id, principal
from cortexd.demo.prompt import understand_response
from cortexd.demo.writing import Choice, write_reply

_NAMES = {"prompt_tokens": "input_tokens", "completion_tokens": "output_tokens"}


async def answer_response(machine: Machine, request: Request, reply: Reply) -> None:
    """Answers one request for a response. Raises NeuronError before the first byte if refused."""
    question = understand_response(request.body, request.header(b"content-type"))
    resident = machine.serving(question.model, embeddings=False)
    check_prompt(question, resident)
    async with machine.lines[question.model].admitted(principal(request)):
        generation = Generation(machine, resident.model, question, key_id(request))
        frames = ResponseFrames(
            machine.next_reply_id("resp"),
            question.model,
            int(time.time()),
            machine.switches.line_end,
            is_numbered=machine.switches.numbered_events,
        )
        await write_reply(
            machine,
            [Choice(generation, frames)],
            reply,
            stream=question.stream,
            include_usage=True,
        )


@dataclass
class ResponseFrames:
    """Writes the events of one streamed response, in order. `created` is in Unix seconds."""

    id: str
    model: str
    created: int
    line_end: bytes
    is_numbered: bool
    _number: int = 0
    _pieces: list[str] = field(default_factory=list)
    _status: str = "completed"
    _told: Told | None = None

    def comment(self) -> bytes:
        """A keep-alive that says nothing."""
        return b": keep-alive" + self.line_end * 2

    def role(self) -> bytes:
        """Everything before the first token."""
        item = self._message("in_progress", [])
        part = {"type": "output_text", "text": "", "annotations": []}
        return b"".join(
            [
                self._event("response.created", response=self._response("in_progress", [])),
                self._event("response.in_progress", response=self._response("in_progress", [])),
                self._event("response.output_item.added", output_index=0, item=item),
                self._in_part("response.content_part.added", part=part),
            ]
        )

    def piece(self, text: str, *, thought: bool) -> bytes:
        """Some tokens; thoughts come as an event of their own kind."""
        if thought:
            return self._in_part("response.reasoning_text.delta", delta=text)
        self._pieces.append(text)
        return self._in_part("response.output_text.delta", delta=text, logprobs=[])

    def finish(self, reason: str, told: Told) -> bytes:
        """The end of the message, but not of the response."""
        self._status = "incomplete" if reason == "length" else "completed"
        if told.present:
            self._told = told
        text = "".join(self._pieces)
        part = {"type": "output_text", "text": text, "annotations": []}
        item = self._message(self._status, [part])
        return b"".join(
            [
                self._in_part("response.output_text.done", text=text, logprobs=[]),
                self._in_part("response.content_part.done", part=part),
                self._event("response.output_item.done", output_index=0, item=item),
            ]
        )

    def usage(self, told: Told) -> bytes:
        """Nothing yet: the last event carries it."""
        self._told = told
        return b""

    def error(self, message: str) -> bytes:
        """A response that failed in the middle."""
        error = {"code": "server_error", "message": message}
        return self._event("response.failed", response=self._response("failed", [], error=error))

    def done(self) -> bytes:
        """The last event, with the whole response."""
        part = {"type": "output_text", "text": "".join(self._pieces), "annotations": []}
        output = [self._message(self._status, [part])]
        response = self._response(self._status, output, told=self._told)
        return self._event(f"response.{self._status}", response=response)

    def plain(self, said: Sequence[Said], told: Told) -> bytes:
        """The whole reply to a request that does not stream."""
        [one] = said
        status = "incomplete" if one.reason == "length" else "completed"
        part = {"type": "output_text", "text": one.text, "annotations": []}
        return encode(self._response(status, [self._message(status, [part])], told=told))

    def _event(self, kind: str, **fields: object) -> bytes:
        data: dict[str, object] = {"type": kind, **fields}
        if self.is_numbered:
            data["sequence_number"] = self._number
            self._number += 1
        name = f"event: {kind}".encode() + self.line_end
        return name + event(encode(data), self.line_end)

    def _in_part(self, kind: str, **fields: object) -> bytes:
        place = {"item_id": f"msg_{self.id}", "output_index": 0, "content_index": 0}
        return self._event(kind, **place, **fields)

    def _message(self, status: str, parts: list[object]) -> dict[str, object]:
        message = {"id": f"msg_{self.id}", "type": "message", "role": "assistant"}
        return {**message, "status": status, "content": parts}

    def _response(
        self,
        status: str,
        output: Sequence[object],
        *,
        error: object = None,
        told: Told | None = None,
    ) -> dict[str, object]:
        is_short = status == "incomplete"
        response: dict[str, object] = {
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": status,
            "model": self.model,
            "output": output,
            "error": error,
            "incomplete_details": {"reason": "max_output_tokens"} if is_short else None,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
        }
        if told is not None and told.present:
            response["usage"] = None if told.usage is None else _renamed(told.usage)
        return response


def _renamed(usage: dict[str, object]) -> dict[str, object]:
    named = {_NAMES.get(name, name): count for name, count in usage.items()}
    details = {
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    return named | details

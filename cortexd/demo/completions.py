"""POST /v1/completions of a simulated neuron: several prompts, several answers to each."""

import time
from collections.abc import Sequence

import msgspec

from cortexd.demo.chat import check_prompt
from cortexd.demo.chat_frames import DONE, Said, Told, encode, error_event, event, whole_reply
from cortexd.demo.generation import Generation
from cortexd.demo.http import Reply, Request
from cortexd.demo.machine import Machine, key_id, principal
from cortexd.demo.prompt import understand_completion
from cortexd.demo.writing import Choice, write_reply


async def answer_completion(machine: Machine, request: Request, reply: Reply) -> None:
    """Answers one completion request. Raises NeuronError before the first byte when refused."""
    asked = understand_completion(request.body, request.header(b"content-type"))
    resident = machine.serving(asked.model, embeddings=False)
    for question in asked.questions:
        check_prompt(question, resident)
    async with machine.lines[asked.model].admitted(principal(request)):
        reply_id, created = machine.next_reply_id("cmpl"), int(time.time())
        line_end = machine.switches.line_end
        choices = [
            Choice(
                Generation(machine, resident.model, question, key_id(request)),
                CompletionFrames(reply_id, asked.model, created, line_end, index),
            )
            for index, question in enumerate(asked.questions)
        ]
        await write_reply(
            machine, choices, reply, stream=asked.stream, include_usage=asked.include_usage
        )


class CompletionFrames(msgspec.Struct, frozen=True):
    """Writes the events of one choice. `created` is in Unix seconds."""

    id: str
    model: str
    created: int
    line_end: bytes
    index: int

    def comment(self) -> bytes:
        """A keep-alive that says nothing."""
        return b": keep-alive" + self.line_end * 2

    def role(self) -> bytes:
        """Nothing: a completion begins with its first token."""
        return b""

    def piece(self, text: str, *, thought: bool) -> bytes:
        """Some tokens; a completion does not think."""
        return self._chunk([self._choice(text, None)], Told(False))

    def finish(self, reason: str, told: Told) -> bytes:
        """The chunk that ends the choice."""
        return self._chunk([self._choice("", reason)], told)

    def usage(self, told: Told) -> bytes:
        """The chunk without choices that carries the usage."""
        return self._chunk([], told)

    def error(self, message: str) -> bytes:
        """An error in the middle of a stream."""
        return error_event(message, self.line_end)

    def done(self) -> bytes:
        """The event after the last chunk."""
        return event(DONE, self.line_end)

    def plain(self, said: Sequence[Said], told: Told) -> bytes:
        """The whole reply to a request that does not stream."""
        choices = [
            msgspec.structs.replace(self, index=index)._choice(one.text, one.reason)
            for index, one in enumerate(said)
        ]
        return whole_reply(self.id, "text_completion", self.created, self.model, choices, told)

    def _choice(self, text: str, reason: str | None) -> dict[str, object]:
        return {"index": self.index, "text": text, "logprobs": None, "finish_reason": reason}

    def _chunk(self, choices: list[dict[str, object]], told: Told) -> bytes:
        chunk: dict[str, object] = {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if told.present:
            chunk["usage"] = told.usage
        return event(encode(chunk), self.line_end)

"""POST /v1/chat/completions of a simulated neuron: a request becomes bytes, whole or broken."""

import time

import msgspec

from cortexd.demo.chat_frames import ChatFrames
from cortexd.demo.errors import NeuronError, inference_error
from cortexd.demo.generation import Generation
from cortexd.demo.hardware import Resident
from cortexd.demo.http import Reply, Request
from cortexd.demo.machine import Machine, key_id, principal
from cortexd.demo.prompt import ChatQuestion, understand_chat
from cortexd.demo.writing import Choice, write_reply


async def answer_chat(machine: Machine, request: Request, reply: Reply) -> None:
    """Answers one chat request. Raises NeuronError before the first byte when it is refused."""
    question = understand_chat(request.body, request.header(b"content-type"))
    resident = machine.serving(question.model, embeddings=False)
    inline = (request.header(b"x-include-thinking") or "").lower() in ("1", "true", "yes")
    if inline:
        question = msgspec.structs.replace(question, thinking=True)
    check_prompt(question, resident)
    async with machine.lines[question.model].admitted(principal(request)):
        generation = Generation(machine, resident.model, question, key_id(request))
        frames = ChatFrames(
            machine.next_reply_id(), question.model, int(time.time()), machine.switches.line_end
        )
        await write_reply(
            machine,
            [Choice(generation, frames, inline)],
            reply,
            stream=question.stream,
            include_usage=question.include_usage,
        )


def check_prompt(question: ChatQuestion, resident: Resident) -> None:
    """Raises NeuronError for a prompt that this model cannot read."""
    model = resident.model
    if question.images and not {"vision", "image"} & set(model.capabilities):
        raise NeuronError(inference_error("vision_unsupported", f"{model.id} reads text only"))
    if question.prompt_tokens >= model.context:
        facts = {"prompt_len": question.prompt_tokens, "max": model.context}
        message = f"the prompt has {question.prompt_tokens} tokens, the context {model.context}"
        raise NeuronError(inference_error("context_length_exceeded", message, **facts))

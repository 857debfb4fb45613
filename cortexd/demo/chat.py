"""POST /v1/chat/completions of a simulated neuron: a request becomes bytes, whole or broken."""

import time

import msgspec
import trio

from cortexd.demo.chat_frames import DONE, ChatFrames, Told
from cortexd.demo.errors import NeuronError, inference_error
from cortexd.demo.generation import Generation, Token
from cortexd.demo.hardware import Resident
from cortexd.demo.http import Framing, Reply, Request
from cortexd.demo.machine import Machine, key_id, principal
from cortexd.demo.prompt import ChatQuestion, understand_chat
from cortexd.demo.switches import BreakKind, Broken

_JSON = (b"content-type", b"application/json")
_EVENTS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))


async def answer_chat(machine: Machine, request: Request, reply: Reply) -> None:
    """Answers one chat request. Raises NeuronError before the first byte when it is refused."""
    question = understand_chat(request.body, request.header(b"content-type"))
    resident = machine.serving(question.model, embeddings=False)
    inline = (request.header(b"x-include-thinking") or "").lower() in ("1", "true", "yes")
    if inline:
        question = msgspec.structs.replace(question, thinking=True)
    _check_prompt(question, resident)
    async with machine.lines[question.model].admitted(principal(request)):
        generation = Generation(machine, resident.model, question, key_id(request))
        switches = machine.switches
        frames = ChatFrames(
            machine.next_reply_id(), question.model, int(time.time()), switches.line_end
        )
        if question.stream:
            await _Stream(machine, question, generation, frames, reply, inline=inline).run()
        else:
            await _answer_plain(machine, generation, frames, reply, inline=inline)


async def break_before_head(broken: Broken, reply: Reply) -> None:
    """Ends a request in the given way before any byte of an honest reply."""
    match broken.kind:
        case BreakKind.RESET:
            reply.reset()
        case BreakKind.GARBAGE:
            await reply.raw(broken.garbage)
            reply.close()
        case BreakKind.SILENCE:
            await trio.sleep_forever()
        case _:
            reply.close()


def breaks_before_head(broken: Broken) -> bool:
    """Whether there is no head: no token count is given, and the kind needs no stream."""
    kinds = (BreakKind.RESET, BreakKind.EOF, BreakKind.GARBAGE, BreakKind.SILENCE)
    return broken.after_tokens is None and broken.kind in kinds


class _Stream:
    """One streamed reply: head, comments, role, a chunk per token, finish, usage, [DONE]."""

    def __init__(
        self,
        machine: Machine,
        question: ChatQuestion,
        generation: Generation,
        frames: ChatFrames,
        reply: Reply,
        *,
        inline: bool,
    ) -> None:
        self._machine = machine
        self._include_usage = question.include_usage
        self._generation = generation
        self._frames = frames
        self._reply = reply
        self._text = _Inline(generation) if inline else None
        self._open = False

    async def run(self) -> None:
        switches, generation = self._machine.switches, self._generation
        if switches.head_with_first_token:
            await generation.prefill(None)
        else:
            await self._start()
            await generation.prefill(self._comment)
            await self._reply.write(self._frames.role())
        while True:
            if (broken := generation.broken_now()) is not None:
                await self._start()
                await self._break_off(broken)
                return
            batch = await self._next_batch()
            await self._start()
            if not batch:
                break
            await self._reply.write(self._chunk(batch))
            self._machine.counters.tokens.add(len(batch))
        await self._finish()

    async def _start(self) -> None:
        if not self._open:
            self._open = True
            until_close = self._machine.switches.until_close
            framing = Framing.UNTIL_CLOSE if until_close else Framing.CHUNKED
            await self._reply.start(200, _EVENTS, framing)
            if self._machine.switches.head_with_first_token:
                await self._reply.write(self._frames.role())

    async def _comment(self) -> None:
        await self._reply.write(self._frames.comment())

    async def _next_batch(self) -> list[Token]:
        """The tokens of the next chunk, answer and thoughts never mixed; empty at the end."""
        batch: list[Token] = []
        while len(batch) < self._machine.switches.tokens_per_chunk:
            if batch and batch[-1].thought != self._generation.next_is_thought:
                break
            token = await self._generation.next_token()
            if token is None:
                break
            batch.append(token)
        return batch

    def _chunk(self, batch: list[Token]) -> bytes:
        if self._text is not None:
            text = "".join(self._text.marked(token) for token in batch)
            return self._frames.piece(text, thought=False)
        text = "".join(token.text for token in batch)
        return self._frames.piece(text, thought=batch[0].thought)

    async def _finish(self) -> None:
        switches, frames, reply = self._machine.switches, self._frames, self._reply
        told = self._generation.told()
        silent_usage = switches.usage_only_when_asked and not self._include_usage
        on_finish = switches.usage_on_finish_chunk and not silent_usage
        if not switches.no_finish_reason:
            reason = self._generation.plan.finish_reason
            await reply.write(frames.finish(reason, told if on_finish else Told(False)))
        if told.present and not on_finish and not silent_usage:
            await reply.write(frames.usage(told))
        if not switches.no_done:
            await reply.write(frames.event(DONE))
        await reply.end()

    async def _break_off(self, broken: Broken) -> None:
        match broken.kind:
            case BreakKind.RESET:
                self._reply.reset()
                return
            case BreakKind.EOF:
                self._reply.close()
                return
            case BreakKind.SILENCE:
                await trio.sleep_forever()
            case BreakKind.ERROR_FRAME | BreakKind.ERROR_FRAME_THEN_DONE:
                await self._reply.write(self._frames.error("the simulated engine failed"))
            case BreakKind.GARBAGE:
                await self._reply.write(broken.garbage)
            case BreakKind.END:
                pass
        if broken.kind is BreakKind.ERROR_FRAME_THEN_DONE:
            await self._reply.write(self._frames.event(DONE))
        await self._reply.end()


class _Inline:
    """Thoughts inside the answer, between <think> marks, as `x-include-thinking` asks."""

    def __init__(self, generation: Generation) -> None:
        self._last = len(generation.plan.thoughts) - 1
        self._index = 0

    def marked(self, token: Token) -> str:
        index, self._index = self._index, self._index + 1
        if not token.thought:
            return token.text
        opening = "<think>" if index == 0 else ""
        return opening + token.text + ("</think>" if index == self._last else "")


async def _answer_plain(
    machine: Machine, generation: Generation, frames: ChatFrames, reply: Reply, *, inline: bool
) -> None:
    await generation.prefill(None)
    tokens: list[Token] = []
    while (broken := generation.broken_now()) is None:
        token = await generation.next_token()
        if token is None:
            break
        tokens.append(token)
        machine.counters.tokens.add()
    switches, mark = machine.switches, _Inline(generation)
    text = "".join(mark.marked(token) for token in tokens if inline or not token.thought)
    thoughts = "" if inline else "".join(token.text for token in tokens if token.thought)
    reason = None if switches.no_finish_reason else generation.plan.finish_reason
    body = frames.plain(text, thoughts, reason, generation.told())
    if broken is not None:
        await _break_plain(broken, body, reply)
    elif switches.plain_chunked:
        await reply.start(200, (_JSON,), Framing.CHUNKED)
        await reply.write(body[: len(body) // 2])
        await reply.write(body[len(body) // 2 :])
        await reply.end()
    else:
        await reply.send(200, body, (_JSON,))


async def _break_plain(broken: Broken, body: bytes, reply: Reply) -> None:
    match broken.kind:
        case BreakKind.SILENCE:
            await trio.sleep_forever()
        case BreakKind.GARBAGE:
            await reply.send(200, broken.garbage, (_JSON,))
        case BreakKind.ERROR_FRAME | BreakKind.ERROR_FRAME_THEN_DONE:
            refusal = inference_error("internal", "the simulated engine failed")
            await reply.send(refusal.status, refusal.body, refusal.headers)
        case _:
            await reply.start(200, (_JSON,), Framing.LENGTH, body_bytes=len(body))
            await reply.write(body[: len(body) // 2])
            if broken.kind is BreakKind.RESET:
                reply.reset()
            else:
                reply.close()


def _check_prompt(question: ChatQuestion, resident: Resident) -> None:
    model = resident.model
    if question.images and not {"vision", "image"} & set(model.capabilities):
        raise NeuronError(inference_error("vision_unsupported", f"{model.id} reads text only"))
    if question.prompt_tokens >= model.context:
        facts = {"prompt_len": question.prompt_tokens, "max": model.context}
        message = f"the prompt has {question.prompt_tokens} tokens, the context {model.context}"
        raise NeuronError(inference_error("context_length_exceeded", message, **facts))

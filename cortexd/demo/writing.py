"""A reply in text being written by a simulated neuron: streamed or plain, whole or broken.

Knows the order of things and the ways in which they go wrong; the bytes are the frames' affair, so
that chats, completions and responses break alike.
"""

from collections.abc import Sequence
from typing import Protocol

import msgspec
import trio

from cortexd.demo.chat_frames import Said, Told, tell_usage
from cortexd.demo.errors import inference_error
from cortexd.demo.generation import Generation, Token
from cortexd.demo.http import Framing, Reply
from cortexd.demo.machine import Machine
from cortexd.demo.switches import BreakKind, Broken

JSON = (b"content-type", b"application/json")
_EVENTS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-cache"))


class Frames(Protocol):
    """The bytes of one dialect, for one choice of a reply."""

    def comment(self) -> bytes:
        """A keep-alive that says nothing."""

    def role(self) -> bytes:
        """What comes before the first token."""

    def piece(self, text: str, *, thought: bool) -> bytes:
        """Some tokens of the answer, or of the thinking before it."""

    def finish(self, reason: str, told: Told) -> bytes:
        """The end of the choice."""

    def usage(self, told: Told) -> bytes:
        """The usage, where it comes by itself."""

    def error(self, message: str) -> bytes:
        """An error in the middle of a stream."""

    def done(self) -> bytes:
        """The end of a whole stream."""

    def plain(self, said: Sequence[Said], told: Told) -> bytes:
        """The whole reply to a request that does not stream."""


class Choice(msgspec.Struct, frozen=True):
    """One answer and how it is written. `inline`: thoughts stand in the answer, between marks."""

    generation: Generation
    frames: Frames
    inline: bool = False


async def write_reply(
    machine: Machine,
    choices: Sequence[Choice],
    reply: Reply,
    *,
    stream: bool,
    include_usage: bool,
) -> None:
    """Writes the whole reply, one choice after the other."""
    if stream:
        await _Stream(machine, choices, reply, include_usage=include_usage).run()
    else:
        await _answer_plain(machine, choices, reply)


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
        self, machine: Machine, choices: Sequence[Choice], reply: Reply, *, include_usage: bool
    ) -> None:
        self._machine = machine
        self._choices = choices
        self._include_usage = include_usage
        self._frames = choices[0].frames
        self._reply = reply
        self._open = False

    async def run(self) -> None:
        if self._machine.switches.head_with_first_token:
            await self._prefill(comments=False)
        else:
            await self._start()
            await self._prefill(comments=True)
            await self._reply.write(self._frames.role())
        for choice in self._choices:
            if not await self._write_choice(choice):
                return
        await self._finish()

    async def _prefill(self, *, comments: bool) -> None:
        for choice in self._choices:
            await choice.generation.prefill(self._comment if comments else None)

    async def _write_choice(self, choice: Choice) -> bool:
        """One choice to its end; False when the reply has broken off."""
        generation = choice.generation
        text = _Inline(generation) if choice.inline else None
        while True:
            if (broken := generation.broken_now()) is not None:
                await self._start()
                await self._break_off(broken)
                return False
            batch = await self._next_batch(generation)
            await self._start()
            if not batch:
                break
            await self._reply.write(_chunk(batch, choice.frames, text))
            self._machine.counters.tokens.add(len(batch))
        if not self._machine.switches.no_finish_reason:
            is_last = choice is self._choices[-1]
            told = self._told if self._tells_on_finish and is_last else Told(False)
            await self._reply.write(choice.frames.finish(generation.plan.finish_reason, told))
        return True

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

    async def _next_batch(self, generation: Generation) -> list[Token]:
        """The tokens of the next chunk, answer and thoughts never mixed; empty at the end."""
        batch: list[Token] = []
        while len(batch) < self._machine.switches.tokens_per_chunk:
            if batch and batch[-1].thought != generation.next_is_thought:
                break
            token = await generation.next_token()
            if token is None:
                break
            batch.append(token)
        return batch

    @property
    def _told(self) -> Told:
        return told_together(self._machine, [choice.generation for choice in self._choices])

    @property
    def _tells(self) -> bool:
        return self._include_usage or not self._machine.switches.usage_only_when_asked

    @property
    def _tells_on_finish(self) -> bool:
        return self._tells and self._machine.switches.usage_on_finish_chunk

    async def _finish(self) -> None:
        reply, frames, told = self._reply, self._frames, self._told
        if told.present and self._tells and not self._tells_on_finish:
            await reply.write(frames.usage(told))
        if not self._machine.switches.no_done:
            await reply.write(frames.done())
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
            await self._reply.write(self._frames.done())
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


def _chunk(batch: list[Token], frames: Frames, inline: _Inline | None) -> bytes:
    if inline is not None:
        return frames.piece("".join(inline.marked(token) for token in batch), thought=False)
    return frames.piece("".join(token.text for token in batch), thought=batch[0].thought)


def told_together(machine: Machine, generations: Sequence[Generation]) -> Told:
    """The usage member for the end of a reply with these choices."""
    if len(generations) == 1:
        return generations[0].told()
    return tell_usage(
        prompt_tokens=sum(generation.prompt_tokens for generation in generations),
        completion_tokens=sum(generation.emitted for generation in generations),
        lie=machine.switches.usage,
        timing={},
    )


async def _answer_plain(machine: Machine, choices: Sequence[Choice], reply: Reply) -> None:
    switches, said = machine.switches, list[Said]()
    broken: Broken | None = None
    for choice in choices:
        await choice.generation.prefill(None)
    for choice in choices:
        one, broken = await _say(machine, choice)
        said.append(one)
        if broken is not None:
            break
    told = told_together(machine, [choice.generation for choice in choices])
    body = choices[0].frames.plain(said, told)
    if broken is not None:
        await _break_plain(broken, body, reply)
    elif switches.plain_chunked:
        await reply.start(200, (JSON,), Framing.CHUNKED)
        await reply.write(body[: len(body) // 2])
        await reply.write(body[len(body) // 2 :])
        await reply.end()
    else:
        await reply.send(200, body, (JSON,))


async def _say(machine: Machine, choice: Choice) -> tuple[Said, Broken | None]:
    """One choice as a whole, as far as it came."""
    generation, inline = choice.generation, choice.inline
    tokens: list[Token] = []
    while (broken := generation.broken_now()) is None:
        token = await generation.next_token()
        if token is None:
            break
        tokens.append(token)
        machine.counters.tokens.add()
    mark = _Inline(generation)
    text = "".join(mark.marked(token) for token in tokens if inline or not token.thought)
    thoughts = "" if inline else "".join(token.text for token in tokens if token.thought)
    reason = None if machine.switches.no_finish_reason else generation.plan.finish_reason
    return Said(text, thoughts, reason), broken


async def _break_plain(broken: Broken, body: bytes, reply: Reply) -> None:
    match broken.kind:
        case BreakKind.SILENCE:
            await trio.sleep_forever()
        case BreakKind.GARBAGE:
            await reply.send(200, broken.garbage, (JSON,))
        case BreakKind.ERROR_FRAME | BreakKind.ERROR_FRAME_THEN_DONE:
            refusal = inference_error("internal", "the simulated engine failed")
            await reply.send(refusal.status, refusal.body, refusal.headers)
        case _:
            await reply.start(200, (JSON,), Framing.LENGTH, body_bytes=len(body))
            await reply.write(body[: len(body) // 2])
            if broken.kind is BreakKind.RESET:
                reply.reset()
            else:
                reply.close()

"""One chat reply being produced: what will be said, at which pace, counted before it is sent.

Writes no byte to the client itself; chat.py takes the tokens from here and puts them on the wire.
"""

import time
from collections.abc import Awaitable, Callable, Iterator

import msgspec
import trio

from cortexd.demo.chat_frames import Told, tell_usage
from cortexd.demo.hardware import SimulatedModel
from cortexd.demo.machine import Machine
from cortexd.demo.prompt import ChatQuestion
from cortexd.demo.switches import Broken, Switches
from cortexd.demo.words import natural_length, reply_tokens, thought_tokens

_TOKENS_PER_CHECKPOINT = 16


class Token(msgspec.Struct, frozen=True):
    """One token of a reply; `thought` when it belongs to the thinking before the answer."""

    text: str
    thought: bool = False


class Plan(msgspec.Struct, frozen=True):
    """What a reply would be if nothing broke. `length` counts thoughts too."""

    thoughts: tuple[str, ...]
    length: int
    finish_reason: str
    seed: str

    def tokens(self) -> Iterator[Token]:
        """The tokens in order; an answer that is not cut off ends with a full stop."""
        for thought in self.thoughts[: self.length]:
            yield Token(thought, thought=True)
        spoken = self.length - len(self.thoughts)
        words = reply_tokens(self.seed)
        previous = ""
        for index in range(spoken):
            word = next(words)
            if index == spoken - 1 and self.finish_reason == "stop" and previous != ".":
                word = "."
            previous = word
            yield Token(word)


def plan_reply(
    question: ChatQuestion, model: SimulatedModel, switches: Switches, *, prompt_tokens: int
) -> Plan:
    """How long a reply gets.

    Its natural length, unless the request's limit or the context is shorter.
    """
    thoughts = thought_tokens(question.seed) if model.reasoning and question.thinking else []
    wanted = _wanted_tokens(question, switches) + len(thoughts)
    room = max(1, model.context - prompt_tokens)
    asked = question.output_tokens_max
    limit = min(room, model.output if asked is None else asked)
    if switches.ignore_max_tokens:
        if switches.reply_tokens is None and switches.fixed_usage is None and asked is not None:
            wanted = max(wanted, 2 * asked)
        limit = wanted
    length = min(wanted, limit)
    return Plan(tuple(thoughts), length, "length" if length < wanted else "stop", question.seed)


def _wanted_tokens(question: ChatQuestion, switches: Switches) -> int:
    if switches.reply_tokens is not None:
        return switches.reply_tokens
    if switches.fixed_usage is not None:
        return switches.fixed_usage[1]
    shortest, longest = switches.natural_tokens
    return natural_length(question.seed, shortest=shortest, longest=longest)


class Generation:
    """A reply under way. Cancel it at any time: what was counted until then was really served."""

    def __init__(
        self, machine: Machine, model: SimulatedModel, question: ChatQuestion, key_id: str
    ) -> None:
        self._machine = machine
        self._model = model
        self._key_id = key_id
        fixed = machine.switches.fixed_usage
        self.prompt_tokens = question.prompt_tokens if fixed is None else fixed[0]
        self.plan = plan_reply(question, model, machine.switches, prompt_tokens=self.prompt_tokens)
        self.emitted = 0
        self._tokens = self.plan.tokens()
        self._served = machine.counters.served.begin(key_id)
        self._clock_seconds = [time.monotonic()]

    async def prefill(self, comment: Callable[[], Awaitable[None]] | None) -> None:
        """Reads the prompt, counted before the first wait.

        `comment` is called about every comment_seconds.
        """
        machine, switches = self._machine, self._machine.switches
        machine.counters.served.add(self._served, self._key_id, prompt=self.prompt_tokens)
        ends = trio.current_time() + switches.prefill_seconds
        permitted = not switches.gated_prefill
        while not permitted or trio.current_time() < ends:
            with trio.move_on_after(switches.comment_seconds):
                if not permitted:
                    await machine.gates.prefills.acquire()
                    permitted = True
                await trio.sleep_until(ends)
            if comment is not None:
                await comment()
        self._clock_seconds.append(time.monotonic())

    async def next_token(self) -> Token | None:
        """The next token, counted as served, or None at the end."""
        if self.emitted >= self.plan.length:
            return None
        switches = self._machine.switches
        if switches.gated:
            await self._machine.gates.tokens.acquire()
        elif switches.token_seconds > 0:
            await trio.sleep(switches.token_seconds)
        elif self.emitted % _TOKENS_PER_CHECKPOINT == 0:
            await trio.lowlevel.checkpoint()
        self.emitted += 1
        self._machine.counters.served.add(self._served, self._key_id, completion=1)
        return next(self._tokens)

    @property
    def next_is_thought(self) -> bool:
        """Whether the next token belongs to the thinking."""
        return self.emitted < len(self.plan.thoughts)

    def broken_now(self) -> Broken | None:
        """The way in which this reply is to break off here, if it is."""
        broken = self._machine.switches.broken
        if broken is None:
            return None
        due = min(broken.after_tokens or 0, self.plan.length)
        return broken if self.emitted >= due else None

    def told(self) -> Told:
        """The usage member for the end of this reply; measures the model's speed in passing."""
        began, read, now = *self._clock_seconds, time.monotonic()
        timing: dict[str, object] = {
            "prefill_ms": round((read - began) * 1000),
            "decode_ms": round((now - read) * 1000),
            "prefill_tokens": self.prompt_tokens,
        }
        speed = self._machine.speeds.get(self._model.id)
        if speed is not None:
            speed.prefill = round(self.prompt_tokens / max(read - began, 1e-3), 1)
            speed.decode = round(self.emitted / max(now - read, 1e-3), 1)
        return tell_usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self.emitted,
            lie=self._machine.switches.usage,
            timing=timing,
        )

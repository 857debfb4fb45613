"""Requests as honest neurons answer them: what was reserved, what was consumed, what was said.

It owns the truth of one request: how many tokens a neuron consumes for it, which is never more than
its bound, and an ending that tells the gateway as much of it as such an ending does.
"""

import random

from cortexd.dialects.upper_bound import Bound
from cortexd.dialects.usage import Ending, EndingKind, Seen, Usage
from cortexd.ledger.charging import IN_FLIGHT_TOKENS, charge


class Work:
    """One request: its `bound`, whether it was `dispatched`, its `ending`, and the true `tokens`.

    Not dispatched: `tokens` is 0. `ending` None: nobody said how it ended.
    """

    __slots__ = ("bound", "dispatched", "ending", "tokens")

    def __init__(self, source: random.Random, tokens_max: int) -> None:
        prompt_max = source.randrange(1, max(2, tokens_max // 2))
        choices = source.choice((1, 1, 1, 2))
        output_max = source.randrange(1, max(2, (tokens_max - prompt_max) // choices))
        self.bound = Bound(prompt_max, output_max, choices)
        self.dispatched = source.random() < 0.9
        self.ending: Ending | None = None
        self.tokens = 0
        if self.dispatched:
            self._answer(source)

    def afford(self, tokens: int) -> None:
        """Only so many tokens were reserved: the neuron is told to stop sooner, and does."""
        bound = self.bound
        if tokens < bound.total:
            output_tokens = (tokens - bound.prompt_tokens) // bound.choices
            self.bound = Bound(bound.prompt_tokens, output_tokens, bound.choices)
            self.tokens = min(self.tokens, self.bound.total)
            self.ending = None

    def check_charge(self) -> int:
        """What the gateway charges; raises AssertionError if a neuron's work was free."""
        cost = charge(self.bound, self.ending, dispatched=self.dispatched)
        assert cost.tokens >= self.tokens, f"{self.tokens} consumed, {cost}, {self.ending}"
        assert cost.overrun == 0, f"an honest neuron's overrun: {cost}, {self.ending}"
        assert cost.prompt_tokens + cost.completion_tokens == cost.tokens
        return cost.tokens

    def _answer(self, source: random.Random) -> None:
        bound = self.bound
        prompt = source.randrange(1, bound.prompt_tokens + 1)
        output_max = bound.choices * bound.output_tokens
        output = source.randrange(output_max + 1)
        chunks = source.randrange(output + 1)
        seen = Seen(chunks=chunks, text_bytes=chunks * 4)
        # Some engines report one choice's tokens only.
        usage = Usage(prompt, -(-output // bound.choices))
        kind = source.choice((*EndingKind, EndingKind.COMPLETED, None))
        streamed = source.random() < 0.7
        match kind:
            case None:
                pass
            case EndingKind.NEURON_REFUSED:
                prompt = output = 0
                self.ending = Ending(kind, False, None, Seen(), False)
            case EndingKind.COMPLETED:
                told = usage if source.random() < 0.7 else None
                self.ending = Ending(kind, streamed, told, seen, False)
            case EndingKind.CUT:
                output = output_max
                self.ending = Ending(kind, True, None, seen, False)
            case _:
                token_per_chunk = source.random() < 0.5
                if streamed and token_per_chunk:
                    in_flight = source.randrange(IN_FLIGHT_TOKENS + 1) * bound.choices
                    output = min(chunks + in_flight, output_max)
                told = Usage(prompt, chunks) if source.random() < 0.3 else None
                self.ending = Ending(kind, streamed, told, seen, token_per_chunk)
        self.tokens = prompt + output

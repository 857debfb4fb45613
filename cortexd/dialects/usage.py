"""What a request used: the engine's own word for it, and what was seen of it on the way past.

Owns the shape of a believable usage object and the names of the ways in which a relay can end.
Refuses to know what any of that costs: `ledger/charging.py` decides it from these facts.
"""

from __future__ import annotations

from enum import Enum

import msgspec

TOKENS_LIMIT = 2**53
"""First token count that is not believed: beyond it JSON readers no longer agree on integers."""


class Usage(msgspec.Struct, frozen=True):
    """Tokens as an engine reports them, already checked by `read_usage`.

    `prompt_tokens` includes the cached ones; `completion_tokens` includes reasoning.
    """

    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int = 0

    @property
    def total(self) -> int:
        """Tokens of the prompt and of everything that was generated."""
        return self.prompt_tokens + self.completion_tokens


class Seen(msgspec.Struct, frozen=True):
    """What passed through our hands: a floor under any usage that an engine reports.

    `chunks`: pieces of generated text or tool calls (one per choice and event).
    `text_bytes`: UTF-8 bytes of that text; a token is at least one byte, so never fewer bytes
    than tokens.
    """

    chunks: int = 0
    text_bytes: int = 0


class EndingKind(Enum):
    """How a relay to a neuron ended."""

    COMPLETED = "completed"
    """The whole answer came, every choice with its finish_reason."""
    CUT = "cut"
    """The neuron ran past the output it was given; we stopped reading."""
    CLIENT_GONE = "client_gone"
    """The client hung up first."""
    NEURON_FAILED = "neuron_failed"
    """The neuron broke off, fell silent, or sent an error or garbage."""
    NEURON_REFUSED = "neuron_refused"
    """An error status that proves that no work was done."""


class Ending(msgspec.Struct, frozen=True):
    """How a relay ended and everything known about what it used.

    `streamed`: the neuron was asked for a stream, so `seen` counts what really came.
    `usage`: the last believable usage object, or None. `token_per_chunk`: this kind of neuron
    promises one token per chunk and was being read, so that `seen.chunks` counts all tokens but
    the few in flight; otherwise what was seen says nothing about what was generated.
    `counts_every_choice`: this kind of engine is known to report the tokens of all answers.
    """

    kind: EndingKind
    streamed: bool
    usage: Usage | None
    seen: Seen
    token_per_chunk: bool
    counts_every_choice: bool = False


def read_usage(reported: object) -> Usage | None:
    """Read a decoded `usage` object of the OpenAI chat dialect.

    Returns None for anything that is not believable: no object, a count that is missing, negative,
    absurd or no integer (booleans are none), or a prompt of zero tokens. A strange number of
    cached tokens only loses the cached tokens. `total_tokens` is not read: engines disagree on
    what it includes.
    Example: `{"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}`.
    """
    if not isinstance(reported, dict):
        return None
    prompt_tokens = _token_count(reported.get("prompt_tokens"))
    completion_tokens = _token_count(reported.get("completion_tokens"))
    if not prompt_tokens or completion_tokens is None:
        return None
    details = reported.get("prompt_tokens_details")
    if not isinstance(details, dict):
        return Usage(prompt_tokens, completion_tokens)
    cached = _token_count(details.get("cached_tokens")) or 0
    return Usage(prompt_tokens, completion_tokens, min(cached, prompt_tokens))


def read_input_usage(reported: object) -> Usage | None:
    """Read a decoded `usage` object of an endpoint that generates nothing.

    Engines name `prompt_tokens`, `total_tokens` or both; the larger one counts.
    Example: `{"prompt_tokens": 12, "total_tokens": 12}`.
    """
    if not isinstance(reported, dict):
        return None
    told = [_token_count(reported[n]) for n in ("prompt_tokens", "total_tokens") if n in reported]
    counts = [count for count in told if count is not None]
    if not counts or len(counts) < len(told) or max(counts) == 0:
        return None
    return Usage(prompt_tokens=max(counts), completion_tokens=0)


def _token_count(reported: object) -> int | None:
    if type(reported) is int and 0 <= reported < TOKENS_LIMIT:
        return reported
    return None

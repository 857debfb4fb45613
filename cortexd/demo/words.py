"""What a simulated neuron says: varied, plausible sentences, the same for the same seed. Pure.

A token here is one word with the space before it, or one mark of punctuation. Two tokens in a
row are never equal, so a relay that loses, repeats or reorders chunks changes the text.
"""

from collections.abc import Iterator
from hashlib import blake2b

_SUBJECTS = [
    "the ledger",
    "a patient router",
    "our smallest model",
    "every honest neuron",
    "the night operator",
    "a fresh journal",
    "one busy graphics card",
    "the quiet scheduler",
    "a careful budget",
    "this demo fleet",
    "an idle cluster",
    "the last token",
]
_VERBS = [
    "counts",
    "remembers",
    "forwards",
    "measures",
    "keeps",
    "admits",
    "follows",
    "writes down",
    "adds up",
    "waits for",
    "protects",
    "explains",
]
_OBJECTS = [
    "each answer",
    "ten short sentences",
    "the next question",
    "a warm cache",
    "what was promised",
    "every reservation",
    "the long way home",
    "two loose cables",
    "a bowl of apples",
    "yesterday's weather",
    "the whole alphabet",
    "more than enough",
]
_PLACES = [
    "before breakfast",
    "on a rainy Tuesday",
    "behind the rack",
    "without any hurry",
    "in plain sight",
    "until the cap is near",
    "after a power cut",
    "beside the window",
    "at full speed",
    "under the stairs",
    "between two heartbeats",
    "for free",
]
_LINKS = ["and then", "because", "so that", "while", "although", "unless"]
_THOUGHTS = [
    "first",
    "recall",
    "what",
    "was",
    "asked",
    "then",
    "weigh",
    "two",
    "or",
    "three",
    "answers",
    "and",
    "pick",
    "the",
    "shortest",
    "honest",
    "one",
]


def reply_tokens(seed: str) -> Iterator[str]:
    """Endless text for `seed`, token by token; joined together it reads as sentences."""
    dice = _dice(seed)
    first = True
    while True:
        for token in _sentence(dice):
            yield token.lstrip() if first else token
            first = False


def natural_length(seed: str, *, shortest: int, longest: int) -> int:
    """How many tokens a reply to `seed` has when nothing limits it."""
    return shortest + next(_dice("length " + seed)) % (longest - shortest + 1)


def thought_tokens(seed: str) -> list[str]:
    """What a reasoning model thinks before it speaks: 5 to 17 tokens."""
    length = 5 + next(_dice("thought " + seed)) % (len(_THOUGHTS) - 4)
    return [_THOUGHTS[0], *(" " + word for word in _THOUGHTS[1:length])]


def embedding(text: str, dimensions: int) -> list[float]:
    """A vector of length one that depends on every character of `text`."""
    dice = _dice("embedding " + text)
    raw = [next(dice) / 32767.5 - 1.0 for _ in range(dimensions)]
    norm = sum(value * value for value in raw) ** 0.5 or 1.0
    return [value / norm for value in raw]


def _sentence(dice: Iterator[int]) -> Iterator[str]:
    yield from _words(_clause(dice), capital=True)
    if next(dice) % 3 == 0:
        yield ","
        yield from _words(_pick(dice, _LINKS) + " " + _clause(dice), capital=False)
    yield "."


def _clause(dice: Iterator[int]) -> str:
    parts = (_SUBJECTS, _VERBS, _OBJECTS, _PLACES)
    return " ".join(_pick(dice, part) for part in parts)


def _words(text: str, *, capital: bool) -> Iterator[str]:
    if capital:
        text = text[0].upper() + text[1:]
    return (" " + word for word in text.split(" "))


def _pick(dice: Iterator[int], choices: list[str]) -> str:
    return choices[next(dice) % len(choices)]


def _dice(seed: str) -> Iterator[int]:
    """Numbers from 0 to 65535 that only the seed decides."""
    counter = 0
    key = blake2b(seed.encode("utf-8", "surrogatepass"), digest_size=32).digest()
    while True:
        block = blake2b(counter.to_bytes(8, "big"), key=key, digest_size=64).digest()
        for position in range(0, len(block), 2):
            yield int.from_bytes(block[position : position + 2], "big")
        counter += 1

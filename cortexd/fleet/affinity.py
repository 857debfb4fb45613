"""Which neuron has the beginning of a conversation in its cache, and who is asked first.

Owns the marks of conversations, and who of several replicas comes first. Refuses to know prompts:
of a conversation only keyed digests are kept, which say nothing without the secret of this process.

Theory. A neuron that has read a prompt reads a longer one with the same beginning much faster. A
client sends its whole conversation every time, so the boundaries of its messages are where one
request can end and a later one go on. Each boundary gets a mark, the digest of everything before
it. A request leaves few of its marks behind: its end, where the conversation goes on; the boundary
before its last message, where another question about the same text branches off; and the first
message, which is the instructions that many conversations share. A later request looks for all of
its own marks, the longest first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import TYPE_CHECKING, NamedTuple, NewType

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence, Set

    from cortexd.fleet.view import NeuronName

Mark = NewType("Mark", bytes)
"""A boundary between messages, with all that comes before it: 16 bytes that tell nothing."""

SECRET_BYTES_MIN = 16

MESSAGES_MAX = 4_096
"""A conversation of more messages gets no marks: they would cost more than they save."""

MARKS_PER_REQUEST_MAX = 256
"""Marks of one request: of the first message, and of the last ones."""

_MARK_BYTES = 16
_LENGTH_BYTES = 8
_MESSAGES = msgspec.json.Decoder(list[msgspec.Raw])


def prefix_marks(messages: bytes, *, secret: bytes, scope: Sequence[bytes]) -> tuple[Mark, ...]:
    """The marks of a conversation, the shortest beginning first; reads each byte once.

    `messages`: the JSON array as the client wrote it; two spellings of one message are two
    messages. `scope`: what else must be equal, such as the key's id, the model's, and the tools
    that are rendered before the messages. `secret`: random, 16 to 64 bytes, made anew with each
    process. What is no array, or too long a one, has no marks. Raises ValueError for a secret that
    is none.
    """
    if len(secret) < SECRET_BYTES_MIN:
        raise ValueError(f"a secret has at least {SECRET_BYTES_MIN} bytes")
    try:
        texts = _MESSAGES.decode(messages)
    except (msgspec.DecodeError, RecursionError):
        return ()
    if len(texts) > MESSAGES_MAX:
        return ()
    digest = hashlib.blake2b(key=secret, digest_size=_MARK_BYTES)
    digest.update(len(scope).to_bytes(_LENGTH_BYTES, "big"))
    for part in scope:
        _add(digest, part)
    unmarked = range(1, len(texts) - MARKS_PER_REQUEST_MAX + 1)
    marks: list[Mark] = []
    for position, text in enumerate(texts):
        _add(digest, text)
        if position not in unmarked:
            marks.append(Mark(digest.copy().digest()))
    return tuple(marks)


def _add(digest: hashlib.blake2b, part: bytes | msgspec.Raw) -> None:
    """Feed a part with its length before it, so that no two lists of parts run into each other."""
    view = memoryview(part)
    digest.update(len(view).to_bytes(_LENGTH_BYTES, "big"))
    digest.update(view)


class _Place(NamedTuple):
    """Where a beginning was last read: by which life of which neuron, and when."""

    neuron: NeuronName
    life: int
    at_ms: int


class Affinity:
    """Where beginnings of conversations were last read. One owner, one thread.

    Bounded: the least recently left marks go first, at `marks_max` (about 300 bytes each) or after
    `age_ms_max`. `slack`: how many requests more than the least busy neuron the preferred one may
    have before the conversation is better read again elsewhere.
    """

    def __init__(
        self, *, marks_max: int = 32_768, age_ms_max: int = 1_800_000, slack: int = 1
    ) -> None:
        """Begin with nothing remembered."""
        self._marks_max = marks_max
        self._age_ms_max = age_ms_max
        self._slack = slack
        self._places: OrderedDict[Mark, _Place] = OrderedDict()
        self._lives: dict[NeuronName, int] = {}

    def __len__(self) -> int:
        """How many marks are kept."""
        return len(self._places)

    def remember(self, marks: Sequence[Mark], neuron: NeuronName, *, now_ms: int) -> None:
        """A neuron reads, or has read, a conversation. To be told again when it went elsewhere.

        Of several neurons that read the same beginning the last one counts.
        """
        place = _Place(neuron, self._lives.get(neuron, 0), now_ms)
        for mark in (*marks[:1], *marks[-2:]):
            self._places[mark] = place
            self._places.move_to_end(mark)
        self._tidy(now_ms)

    def prefer(
        self, marks: Sequence[Mark], busy: Mapping[NeuronName, int], *, now_ms: int
    ) -> NeuronName | None:
        """The candidate that has read most of a conversation and is not overloaded; None: nobody.

        `busy`: every candidate, with the requests that it has in flight and waiting.
        """
        busy_max = min(busy.values(), default=0) + self._slack
        for mark in reversed(marks):
            place = self._places.get(mark)
            if place is None or not self._is_fresh(place, now_ms):
                continue
            if place.neuron in busy and busy[place.neuron] <= busy_max:
                return place.neuron
        return None

    def forget(self, neuron: NeuronName) -> None:
        """A neuron has lost its cache, as by a restart."""
        self._lives[neuron] = self._lives.get(neuron, 0) + 1

    def _is_fresh(self, place: _Place, now_ms: int) -> bool:
        recent = now_ms - place.at_ms <= self._age_ms_max
        return recent and place.life == self._lives.get(place.neuron, 0)

    def _tidy(self, now_ms: int) -> None:
        """Marks lie in the order of their age; those that are let go pay for those that came."""
        places = self._places
        while places:
            oldest = next(iter(places.values()))
            if len(places) <= self._marks_max and self._is_fresh(oldest, now_ms):
                return
            places.popitem(last=False)


def first(
    busy: Mapping[NeuronName, int],
    not_closed: Set[NeuronName],
    preferred: NeuronName | None = None,
) -> NeuronName:
    """The candidate that is to be tried first.

    `busy`: every candidate, with the requests that it has in flight and waiting: healthy, with the
    model loaded and servable, not tried yet, not draining, and its breaker lets the request pass.
    `not_closed`: whose breaker does so only for a probe.

    It is `preferred`, if its breaker is closed: a neuron in trouble has hardly kept its cache. Else
    the least busy; of equals one with a closed breaker, so that a request is made a probe only
    where the others have more to do; then by name.
    """
    if preferred is not None and preferred not in not_closed:
        return preferred
    return min([(many, name in not_closed, name) for name, many in busy.items()])[2]

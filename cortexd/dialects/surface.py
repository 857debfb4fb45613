"""What an endpoint is to the one way that every request takes: a surface, and what it understood.

Owns the shapes between a dialect and the way through cortexd. A dialect reads a body, bounds it,
writes it for a neuron, and reads what comes back; the way through cortexd calls these steps in
order and knows no endpoint by name. Refuses to know keys, budgets, neurons and HTTP heads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import msgspec

from cortexd.dialects.body import Body, Unfit
from cortexd.dialects.engine_traits import ANY_ENGINE, Traits
from cortexd.dialects.refusals import Refusal, RefusalKind
from cortexd.dialects.usage import Seen, Usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from cortexd.dialects.asked import Asked
    from cortexd.dialects.refusals import Rendered
    from cortexd.dialects.upper_bound import Bound, ModelLimits

JSON = "application/json"
_NESTED_AT_LEAST_BYTES = 512
"""Fewer hold no nesting that could exhaust a stack."""
_ROOM_FRAMES = 64

ReadT = TypeVar("ReadT")


class Document(msgspec.Struct, frozen=True):
    """A whole body and its content type, whichever way it travels.

    `content_type` comes from outside where the body does, and may be "". `request_id`: of the
    exchange that it belongs to, where a dialect repeats it in its answers. `headers`: what a neuron
    is told beside a body.
    """

    body: bytes
    content_type: str = JSON
    request_id: str = ""
    headers: tuple[tuple[bytes, bytes], ...] = ()


class Target(msgspec.Struct, frozen=True):
    """What a request is written for.

    `model`: the name that the neuron knows it by. `output_tokens`: the most, per choice. `engine`:
    what kind of neuron it is. `stream`: whether it is to answer with a stream.
    """

    model: str
    output_tokens: int
    engine: Traits = ANY_ENGINE
    stream: bool = False


class PlainReply(msgspec.Struct, frozen=True):
    """A whole answer: the bytes for the client, what it says that it used, and what was seen.

    `content_type` is printable ASCII. `notes`: what was amiss with it, in single words fit for a
    log line.
    """

    body: bytes
    usage: Usage | None
    seen: Seen = Seen()
    content_type: str = JSON
    notes: tuple[str, ...] = ()


class Watcher(Protocol):
    """A neuron's stream on its way to a client: passed on, watched, and ended properly.

    `failure` is what the client is told; whoever meets one outside the stream sets it, and `close`
    then writes it. `fault` is the same in one word, fit for a log. `cut`: stop reading. `done`:
    nothing more will come. `usage` is the latest believable one. `notes`: what was amiss with a
    stream that is no failure, in single words fit for a log line.
    """

    notes: frozenset[str]
    failure: str | None
    fault: str | None
    cut: bool
    done: bool
    usage: Usage | None

    @property
    def seen(self) -> Seen:
        """What was generated so far, counted also where it was not passed on."""

    @property
    def finished(self) -> bool:
        """Whether the answer is whole, even if its last bytes are still held back."""

    def head(self) -> bytes:
        """Return what may be sent before the neuron says anything; once, before any `feed`."""

    def heartbeat(self) -> bytes:
        """Return what keeps a silent stream alive without saying anything."""

    def refuse(self, refusal: Refusal) -> bytes:
        """Return the last bytes of a stream that never got beyond its head, and heartbeats."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the neuron; return the bytes that the client gets now."""

    def close(self) -> bytes:
        """Return the client's last bytes; what is not whole ends in a failure."""


class Gathering(Watcher, Protocol):
    """A stream that no client reads, gathered to a plain answer; see `gathering.py`."""

    def whole(self) -> bytes:
        """The body of the plain answer; once it is closed, and has not failed."""


class Understood(Protocol):
    """A request that was read and checked, with all that can be done with it."""

    @property
    def asked(self) -> Asked:
        """The facts that do not depend on the endpoint."""

    def bound(self, limits: ModelLimits, *, capped: bool) -> Bound | Refusal:
        """Work out the most that it can cost on a model with `limits`.

        Refuses (400) for a `capped` key what nothing bounds, and names the setting that is missing.
        """

    def write(self, limits: ModelLimits, target: Target) -> Document:
        """Write it for a neuron, with the limit that it has to keep to."""

    def read(self, answer: Document, limits: ModelLimits) -> PlainReply | None:
        """Read a neuron's plain answer; None when it is none of this endpoint's."""

    def watch(self, *, output_tokens: int) -> Watcher:
        """Begin to watch a stream of which `output_tokens` per choice are paid for.

        Called only where `asked.stream` is set.
        """

    def forget(self) -> None:
        """Let go of what is only needed to `write` it: no further neuron will be asked.

        A prompt can be megabytes, and its answer be streamed for many minutes. Called only while
        one streams.
        """

    def gather(self, *, output_tokens: int) -> Gathering | None:
        """Begin to gather a plain answer from a stream; None: a neuron is asked for it as it is."""


class Surface(Protocol):
    """One endpoint that has neurons do work.

    `neuron_path`: where a neuron is asked. `answer_noun`: what a good answer is, as in "the
    neuron's answer was no ...". `token_per_chunk`: a neuron that speaks the neuron protocol
    promises one token per event here.
    """

    @property
    def neuron_path(self) -> str:
        """Where a neuron is asked, as in `/v1/chat/completions`."""

    @property
    def answer_noun(self) -> str:
        """What a good answer is called, as in `chat completion`."""

    @property
    def token_per_chunk(self) -> bool:
        """Whether the neuron protocol promises one token per event on this path."""

    def understand(
        self, posted: Document, *, forward_fields: frozenset[str]
    ) -> Understood | Refusal:
        """Read a request's body; `forward_fields` are let through beyond the closed list."""

    def render(self, refusal: Refusal, *, request_id: str, model: str = "") -> Rendered:
        """Put a refusal into the error envelope of this dialect.

        `model`: the name that the client used, as soon as it is known.
        """


class Way(msgspec.Struct, frozen=True):
    """How a request is put to a neuron: at which endpoint, and in which words."""

    surface: Surface
    request: Understood


@runtime_checkable
class Bilingual(Protocol):
    """An `Understood` that is translated for most neurons, and which others can read as it is."""

    def native(self) -> Way | None:
        """Return the way to a neuron that speaks the client's dialect; None where only a
        translation will do.
        """


def _deeper(frames: int, read: Callable[[], ReadT]) -> ReadT:
    """Read with so much less room on the stack: who decodes values again later has this much."""
    return _deeper(frames - 1, read) if frames else read()


def understood(
    read: Callable[[Body, frozenset[str]], ReadT], posted: bytes, forward_fields: frozenset[str]
) -> ReadT | Refusal:
    """Carry out the reading of a JSON body; what is unfit, or nested beyond reason, becomes its
    refusal.
    """
    try:
        if len(posted) < _NESTED_AT_LEAST_BYTES:
            return read(Body(posted), forward_fields)
        return _deeper(_ROOM_FRAMES, lambda: read(Body(posted), forward_fields))
    except Unfit as unfit:
        return unfit.refusal
    except RecursionError:
        return Refusal(RefusalKind.INVALID_JSON, "The request body is nested too deeply.")

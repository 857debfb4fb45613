"""What every adapter of an engine offers, and what adapters share.

An adapter is the knowledge of one engine's control API: which calls tell what it has, and which
call begins a load. Owns the words for what an engine refuses. Refuses to know time: how long a call
may take, and how long it takes until a load that began is done, is in controls.py.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, TypeVar

import msgspec

from cortexd.fleet.load_calls import LoadFailed, UnloadFailed, shown
from cortexd.fleet.neuron import NoAnswer, PollFailed, few_enough
from cortexd.fleet.reports import Garbage, Servable
from cortexd.fleet.view import Answered

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cortexd.config.schema import NeuronKind
    from cortexd.fleet.load_calls import LoadSpec
    from cortexd.fleet.neuron import Calls
    from cortexd.fleet.reports import ModelId, ModelLoad, ModelReport

LOAD_FAILED = Servable(ok=False, reason="load_failed")
"""What an adapter says of a model that its engine failed to load, and that is not loaded now."""

MODELS_ASKED_MAX = 16
"""Of so many loaded models an engine is asked one by one how busy they are."""

_UNKNOWN = 404
ReadT = TypeVar("ReadT")


class NotNow(Exception):
    """An engine has no room for a load at this moment, and asks to be asked again."""


class Engine(ABC):
    """One server of some kind; the base of all adapters.

    `look` raises PollFailed or Garbage. `begin_load` and `begin_unload` return once the engine has
    said yes, also if there was nothing to do, and raise LoadFailed or UnloadFailed; a load also
    NotNow. None of them bounds its time. Nothing is remembered between calls, but for what `maybe`
    keeps.
    """

    kind: ClassVar[NeuronKind]
    tells_failures: ClassVar[bool] = False
    """Whether its list tells a load that failed from a model that was loaded and has left again."""

    def __init__(self, calls: Calls, base_url: str, *, optional_seconds: float) -> None:
        """Nothing is asked yet. `optional_seconds`: for a call that the rest can do without."""
        self.calls = calls
        self.base_url = base_url
        self.optional_seconds = optional_seconds

    @abstractmethod
    async def look(self) -> Answered:
        """What it has now."""

    async def begin_load(self, spec: LoadSpec) -> None:
        """Have a model loaded. An engine that knows no loading always fails."""
        reason = f"a server of kind {self.kind} has the models that it was started with"
        raise LoadFailed(f"{reason}: start it with {shown(spec.model)}", permanent=True)

    async def begin_unload(self, model: ModelId) -> None:
        """Have a model unloaded. An engine that knows no unloading always fails."""
        raise UnloadFailed(
            f"a server of kind {self.kind} keeps the models that it was started with"
        )

    async def capabilities(self, model: ModelId) -> tuple[str, ...] | None:
        """What a model can do, loaded or not; None: the engine cannot tell."""
        return None

    async def maybe(
        self, path: str, read: Callable[[bytes], ReadT], *, among: int = 1
    ) -> ReadT | None:
        """What a call tells that the rest can do without, now or a while ago; None: nothing.

        `among` so many calls of its kind it has the time of one.
        """
        seconds = self.optional_seconds / among
        return await self.calls.maybe(path, read, within_seconds=seconds)

    async def listed(
        self, path: str, read: Callable[[bytes], tuple[ModelReport, ...]]
    ) -> tuple[ModelReport, ...]:
        """The model list, which every kind has; a list that is none is a failed poll."""
        try:
            return few_enough(await self.calls.read(path, read))
        except Garbage as garbage:
            raise PollFailed(f"the model list is no model list: {garbage.reason}") from None

    def answered(self, models: Iterable[ModelReport], loads: Iterable[ModelLoad] = ()) -> Answered:
        """A poll that succeeded: every model is asked at the configured address; raises PollFailed
        where there are too many.
        """
        found = few_enough(tuple(models))
        return Answered(
            found,
            dict.fromkeys((model.id for model in found), self.base_url),
            loads=tuple(loads),
        )

    async def told_to_load(self, method: str, path: str, body: object = None) -> tuple[int, bytes]:
        """Status and body of a call that begins a load; raises LoadFailed where there is none."""
        try:
            return await self.calls.ask(method, path, _encoded(body))
        except NoAnswer as none:
            raise LoadFailed(f"{call_of(path)}: {none.reason}") from none

    async def told_to_unload(
        self, method: str, path: str, body: object = None
    ) -> tuple[int, bytes]:
        """The same for an unload; raises UnloadFailed."""
        try:
            return await self.calls.ask(method, path, _encoded(body))
        except NoAnswer as none:
            raise UnloadFailed(f"{call_of(path)}: {none.reason}") from none


def load_refused(path: str, status: int, body: bytes, *, permanent: bool = False) -> LoadFailed:
    """A load that an engine did not begin; a model that it does not know, it never will load."""
    return LoadFailed(_refused(path, status, body), permanent=permanent or status == _UNKNOWN)


def unload_refused(path: str, status: int, body: bytes) -> UnloadFailed:
    """An unload that an engine did not begin."""
    return UnloadFailed(_refused(path, status, body))


def said(body: bytes) -> str:
    """What an answer says for people, as engines shape it; empty where it says nothing."""
    try:
        told = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    for _ in range(2):
        if isinstance(told, dict):
            told = told.get("error") or told.get("detail") or told.get("message")
    return shown(told) if isinstance(told, str) else ""


def call_of(path: str) -> str:
    """A path for a message: what follows the fixed part may be an engine's own text."""
    return path if path.count("/") <= 4 and path.isascii() else "/".join(path.split("/")[:3])


def _refused(path: str, status: int, body: bytes) -> str:
    text = said(body)
    words = f"{call_of(path)} answered with status {status}"
    return f"{words}: {text}" if text else words


def _encoded(body: object) -> bytes:
    return b"" if body is None else msgspec.json.encode(body)
